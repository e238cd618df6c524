"""What the wheel holds, and how it finds its CPU code on the machine where it runs."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import distribution
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from inferno import _core

from tests.models import cache_dir
from tests.packaging.conftest import BROUGHT, PACKAGE, Copy

ROOT = Path(__file__).resolve().parents[2]
#: The variant that every processor of the architecture runs.
PLAINEST = {"x86_64": "x64", "aarch64": "armv8.0_1"}[platform.machine()]

#: Runs a model to its end and prints each file of ours or of OpenMP's that the process then has mapped.
GENERATE = """
import sys
from inferno import LLM
with LLM(sys.argv[1], context_size=128, parallel=1) as llm:
    assert llm.generate("a", max_tokens=4, ignore_eos=True).usage.completion_tokens == 4
lines = [line.split() for line in open("/proc/self/maps")]
print(*sorted({line[-1] for line in lines if len(line) == 6 and ("ggml" in line[-1] or "gomp" in line[-1])}), sep="\\n")
"""


def dynamic(path: Path, *tags: str) -> list[str]:
    """Values of a library's dynamic section."""
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".dynamic")
        entries = [entry for entry in section.iter_tags() if entry.entry.d_tag in tags]
        return [getattr(entry, entry.entry.d_tag.removeprefix("DT_").lower()) for entry in entries]


# ---- what is in it ----


def test_it_is_for_old_systems_too() -> None:
    wheel = distribution("inferno-server").read_text("WHEEL")
    assert wheel is not None
    assert "-manylinux_2_" in wheel


def test_licences_of_what_is_linked_in_come_along() -> None:
    for name in ("llama.cpp", "jsonhpp"):
        assert "MIT License" in (PACKAGE / "licenses" / f"LICENSE-{name}").read_text()


def test_libraries_are_looked_for_inside_the_package(binaries: list[Path]) -> None:
    assert {path.parent for path in binaries} == {PACKAGE, PACKAGE / "lib", BROUGHT}
    for path in binaries:
        for run_path in dynamic(path, "DT_RPATH", "DT_RUNPATH"):
            for entry in run_path.split(":"):
                assert entry.startswith("$ORIGIN")
                assert Path(os.path.normpath(entry.replace("$ORIGIN", str(path.parent)))) in (PACKAGE / "lib", BROUGHT)


def test_nothing_names_the_machine_that_built_it(binaries: list[Path]) -> None:
    places = [str(place).encode() for place in (ROOT, cache_dir(), Path.home())]
    assert not [(path.name, place) for path in binaries for place in places if place in path.read_bytes()]


def test_only_the_module_s_entry_is_visible() -> None:
    (module,) = PACKAGE.glob("_core.*.so")
    with module.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        assert [s.name for s in symbols if s.entry.st_shndx != "SHN_UNDEF"] == ["PyInit__core"]


# ---- how it runs ----


def test_one_variant_and_one_openmp_are_loaded(package: Copy, tiny_model: Path) -> None:
    loaded = [Path(line) for line in package.run("-c", GENERATE, str(tiny_model)).stdout.splitlines()]
    (openmp,) = (path for path in loaded if "gomp" in path.name)
    names = {f"libggml-cpu-{_core.cpu_code}.so", "libinferno-ggml.so", "libinferno-ggml-base.so", openmp.name}
    assert sorted(path.name for path in loaded) == sorted(names)
    assert {path.parent for path in loaded} == {package.libraries, package.directory / BROUGHT.name}


def test_the_best_of_the_variants_is_taken(package: Copy) -> None:
    """Fewer to choose from, another choice; whichever there are, one that runs here."""
    chosen = []
    while package.variants:
        result = package.run("-c", "from inferno import _core; print(_core.cpu_code)")
        if result.returncode != 0:
            break
        chosen.append(result.stdout.strip())
        package.variants[chosen[-1]].unlink()
    assert chosen[0] == _core.cpu_code
    assert chosen[-1] == PLAINEST
    assert len(set(chosen)) == len(chosen)


def test_the_plainest_variant_generates(package: Copy, tiny_model: Path) -> None:
    package.keep_variants(PLAINEST)
    assert f"libggml-cpu-{PLAINEST}.so" in package.run("-c", GENERATE, str(tiny_model)).stdout


@pytest.mark.parametrize("arguments", [("serve",), ("run", "-p", "hello"), ("models", "list"), ("--build-info",)])
def test_a_processor_without_a_variant_is_told_in_one_sentence(package: Copy, arguments: tuple[str, ...]) -> None:
    package.keep_variants()
    result = package.run("-m", "inferno.cli.main", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: None of the CPU variants of this installation runs on this processor; ")


def test_the_version_is_told_on_any_processor(package: Copy) -> None:
    package.keep_variants()
    assert package.run("-m", "inferno.cli.main", "--version").stdout.startswith("inferno, version ")


def test_a_variant_of_another_build_is_refused(package: Copy, tiny_model: Path) -> None:
    """A library that scores as a variant does, and has not what our kernels need of it."""
    package.keep_variants(PLAINEST)
    variant = package.variants[PLAINEST]
    content = variant.read_bytes()
    assert content.count(b"\0inferno_cpu_internals\0") == 1
    variant.write_bytes(content.replace(b"\0inferno_cpu_internals\0", b"\0inferno_cpu_internalz\0"))
    result = package.run("-c", GENERATE, str(tiny_model))
    assert f"The CPU variant {PLAINEST} is not of this build." in result.stderr


def test_nothing_is_loaded_from_elsewhere(package: Copy, tiny_model: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    strange = shutil.copy(package.variants[PLAINEST], elsewhere / "libggml-cpu-strange.so")
    shutil.copy(strange, elsewhere / "libggml-cuda.so")
    environ = {"GGML_BACKEND_PATH": str(strange), "LD_LIBRARY_PATH": str(elsewhere)}
    result = package.run("-c", GENERATE, str(tiny_model), cwd=elsewhere, environ=environ)
    assert result.returncode == 0
    assert str(elsewhere) not in result.stdout
