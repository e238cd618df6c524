# Thin calls of ordinary tools. `make serve` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
WERROR ?= OFF

# One build tree for the module and the C++ tests: llama.cpp is compiled once.
BUILD  := build/dev
VULKAN := build/vulkan
CONFIG := -Cbuild-dir=$(BUILD) -Ccmake.define.INFERNO_BUILD_TESTS=ON -Ccmake.define.INFERNO_WERROR=$(WERROR)

# What the native module is built from: a change elsewhere needs no rebuild.
NATIVE := $(wildcard csrc/* csrc/kernels/*) CMakeLists.txt $(wildcard cmake/*) pyproject.toml $(wildcard third_party/llama.cpp/*.*)

# For calls of CMake outside pip: the virtual environment's ninja and Python first.
CMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" cmake

# The C++ tests that use threads. The others gain nothing from ThreadSanitizer, which makes inference very slow.
THREADED := channel_test engine_test chat_test threads_may_share abort_stops load_can_be_cancelled

.PHONY: setup serve test test-cpp test-vulkan run-gpu-tests build-vulkan test-examples test-converter
.PHONY: sanitize asan tsan build-asan build-tsan lint format bench bench-micro peers wheel test-wheel sdist clean

setup: $(VENV)/.built

$(VENV)/.deps: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --group build --group test --group lint
	touch $@

$(VENV)/.built: $(VENV)/.deps $(NATIVE)
	@echo "Building the engine (minutes the first time)"
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/pip install --quiet --no-build-isolation $(CONFIG) --editable .
	touch $@

serve: setup
	$(BIN)/inferno serve --pull-default $(SERVE_ARGS)

test: setup test-cpp
	$(BIN)/python -m tests.models > /dev/null
	$(BIN)/pytest -q $(TEST_ARGS)

# Its threads sleep soon, as those of servers do (python/inferno/engine/openmp.py).
test-cpp: export GOMP_SPINCOUNT ?= 1000
test-cpp: setup
	$(CMAKE) --build $(BUILD) --target inferno_cpp_tests --parallel $(JOBS)
	$(BIN)/python -m tests.models $(BUILD)/inferno_cpp_tests

# The GPU tests, on Mesa's software device unless INFERNO_TEST_DEVICE names another. Not part of `make test`.
test-vulkan: setup
	@missing=$$($(BIN)/python third_party/vulkan/missing.py) || exit 1; \
	if [ -n "$$missing" ]; then echo "GPU tests skipped, for want of $$missing"; else $(MAKE) run-gpu-tests; fi

run-gpu-tests: build-vulkan
	$(CMAKE) --build $(VULKAN) --target inferno_cpp_tests --parallel $(JOBS)
	$(BIN)/python -m tests.models $(VULKAN)/inferno_cpp_tests rows_and_whole_states_copy_alike
	$(VULKAN)-venv/bin/python -m pytest -q tests/gpu $(TEST_ARGS)

# The module with Vulkan and a Python that sees it, over the packages of .venv.
build-vulkan: setup
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/pip install --quiet --no-deps --no-build-isolation --upgrade \
	  --target $(VULKAN)-site -Cbuild-dir=$(VULKAN) -Ccmake.define.INFERNO_VULKAN=ON \
	  -Ccmake.define.INFERNO_BUILD_TESTS=ON \
	  -Ccmake.define.INFERNO_VULKAN_HEADERS="$$($(BIN)/python third_party/vulkan/fetch.py)" .
	$(BIN)/python -m venv --without-pip $(VULKAN)-venv
	$(BIN)/python third_party/vulkan/layer.py $(VULKAN)-venv $(VULKAN)-site

# Fetches Node, Go and Rust crates into the cache when they are not there. Listens on port 8080, as the examples say.
test-examples: setup
	$(BIN)/python -m tests.models > /dev/null
	$(BIN)/python -m tests.examples.toolchains
	$(BIN)/pytest -q tests/examples $(TEST_ARGS)

# Fetches PyTorch into the cache when it is not there: gigabytes.
test-converter: setup
	$(BIN)/pytest -q -m converter tests/engine $(TEST_ARGS)

sanitize: asan tsan

asan: build-asan
	$(BIN)/python -m tests.models build/asan/inferno_cpp_tests

tsan: build-tsan
	for name in $(THREADED); do $(BIN)/python -m tests.models build/tsan/inferno_cpp_tests $$name || exit 1; done

build-asan build-tsan: build-%: setup
	$(CMAKE) --preset $* -G Ninja > build/$*.log 2>&1 || { cat build/$*.log; exit 1; }
	$(CMAKE) --build build/$* --target inferno_cpp_tests --parallel $(JOBS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/check_includes.py
	$(BIN)/python -m mypy.stubtest inferno._core --ignore-disjoint-bases --allowlist .stubtest-allowlist

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

peers: setup
	$(CMAKE) --preset peers -G Ninja > build/peers.log 2>&1 || { cat build/peers.log; exit 1; }
	$(CMAKE) --build build/peers --target peers --parallel $(JOBS)

# QUICK=1 takes about two minutes; BENCH_ARGS reaches the suite, see --help.
bench: peers
	$(BIN)/python -m benchmarks.suite $(if $(QUICK),--quick) $(BENCH_ARGS)

# What small things cost, without a server.
bench-micro: setup
	$(BIN)/pytest -q benchmarks --benchmark-enable --benchmark-only

# The source distribution carries llama.cpp, so that building from it downloads nothing. The copy does not stay here,
# where CMake would prefer it to the pin.
sdist: setup
	$(BIN)/python third_party/llama.cpp/fetch.py --into third_party/llama.cpp/source
	$(BIN)/python -m build --sdist --no-isolation; status=$$?; rm -rf third_party/llama.cpp/source; exit $$status

# A wheel travels to other machines: its CPU code is chosen there. On Linux auditwheel puts libgomp into it and finds the
# oldest system that it runs on.
wheel: setup
	rm -rf build/wheel-unrepaired
	$(BIN)/pip install --quiet --group wheel
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m build --wheel --no-isolation --outdir build/wheel-unrepaired \
	  -Cbuild-dir=build/wheel -Ccmake.define.INFERNO_NATIVE=OFF -Ccmake.define.INFERNO_PORTABLE=ON
ifeq ($(shell uname),Linux)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel-unrepaired/*.whl
else
	mkdir -p dist && cp build/wheel-unrepaired/*.whl dist
endif

# The wheel as another machine gets it: in an environment of its own, with nothing else on the PATH but curl, which a
# test pastes.
WHEEL_VENV := $(CURDIR)/build/wheel-venv
test-wheel: wheel
	rm -rf $(WHEEL_VENV) && $(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(WHEEL_VENV)/bin/pip install --quiet --only-binary :all: --group test --group wheel dist/*.whl
	ln -s "$$(command -v curl)" $(WHEEL_VENV)/bin/curl
	$(BIN)/python -m tests.models > /dev/null
	env -i HOME="$$HOME" PATH=$(WHEEL_VENV)/bin $(WHEEL_VENV)/bin/pytest -q -p no:cacheprovider \
	  tests/packaging tests/e2e tests/engine $(TEST_ARGS)

clean:
	rm -rf $(VENV) build dist third_party/llama.cpp/source
