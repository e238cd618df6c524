# Thin calls of ordinary tools. `make serve` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)

# What the native module is built from: a change elsewhere needs no rebuild.
NATIVE := $(wildcard csrc/*) CMakeLists.txt $(wildcard cmake/*) pyproject.toml $(wildcard third_party/llama.cpp/*.*)

.PHONY: setup serve test test-cpp sanitize lint format bench peers wheel sdist clean

setup: $(VENV)/.built

$(VENV)/.deps: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --group build --group test --group lint
	touch $@

$(VENV)/.built: $(VENV)/.deps $(NATIVE)
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/pip install --quiet --no-build-isolation --editable .
	touch $@

serve: setup
	$(BIN)/inferno serve --pull-default $(SERVE_ARGS)

test: setup test-cpp
	$(BIN)/python -m tests.models > /dev/null
	$(BIN)/pytest -q $(TEST_ARGS)

test-cpp: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset tests -G Ninja > build/tests.log 2>&1 || { cat build/tests.log; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/tests --target inferno_cpp_tests --parallel $(JOBS)
	$(BIN)/python -m tests.models build/tests/inferno_cpp_tests

sanitize: setup
	for preset in asan tsan; do \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset $$preset -G Ninja > build/$$preset.log 2>&1 || { cat build/$$preset.log; exit 1; }; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/$$preset --target inferno_cpp_tests --parallel $(JOBS) || exit 1; \
	  $(BIN)/python -m tests.models build/$$preset/inferno_cpp_tests || exit 1; \
	done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/check_includes.py
	$(BIN)/python -m mypy.stubtest inferno._core --ignore-disjoint-bases

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

peers: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset peers -G Ninja > build/peers.log 2>&1 || { cat build/peers.log; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/peers --target peers --parallel $(JOBS)

bench: peers
	$(BIN)/python -m benchmarks.engine $(BENCH_ARGS)
	$(BIN)/pytest -q benchmarks --benchmark-enable --benchmark-only

sdist: setup
	$(BIN)/python third_party/llama.cpp/fetch.py --into third_party/llama.cpp/source
	$(BIN)/python -m build --sdist --no-isolation

wheel: setup
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist third_party/llama.cpp/source
