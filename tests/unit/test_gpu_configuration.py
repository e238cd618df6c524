"""What CMake makes of the GPU options, without llama.cpp: configured, or one sentence that says what is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(check LANGUAGES C CXX)
include({root}/cmake/backends.cmake)
if(INFERNO_CUDA)
  get_target_property(_cublas CUDA::cublas IMPORTED_LOCATION)
  message(STATUS "CUDA ${{CMAKE_CUDA_ARCHITECTURES}} with ${{_cublas}}")
endif()
if(INFERNO_VULKAN)
  message(STATUS "Vulkan ${{Vulkan_VERSION}}")
endif()
"""


def configured(directory: Path, *definitions: str) -> tuple[bool, str]:
    """Whether CMake was content, and all that it said in one line."""
    (directory / "CMakeLists.txt").write_text(PROJECT.format(root=ROOT))
    command = ["cmake", "-S", directory, "-B", directory / "build", f"-DPython_EXECUTABLE={sys.executable}"]
    done = subprocess.run([*command, *definitions], capture_output=True, text=True, check=False)
    return done.returncode == 0, re.sub(r"\s+", " ", done.stdout + done.stderr)


def packages() -> Path:
    return Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not at hand")
class TestCuda:
    def test_it_finds_a_compiler_and_cublas_or_says_what_to_install(self, tmp_path: Path) -> None:
        """By what this machine has: NVIDIA's packages from PyPI, a toolkit, a toolkit without cuBLAS, or nothing."""
        done, said = configured(tmp_path, "-DINFERNO_CUDA=ON", "-DINFERNO_CUDA_ARCHITECTURES=75-real;120-real")
        if (packages() / "bin" / "nvcc").exists():
            assert done, said
            assert f"CUDA 75-real;120-real with {packages()}/lib/libcublas.so.13" in said
        elif shutil.which("nvcc") is None:
            assert "INFERNO_CUDA=ON needs nvcc, and none was found." in said
            assert "`pip install --group cuda`" in said
        elif not done:
            assert "INFERNO_CUDA=ON needs cuBLAS, which the CUDA toolkit found has not." in said
            assert "`pip install --group cuda`" in said
        else:
            assert "CUDA 75-real;120-real with " in said

    def test_every_generation_from_turing_to_blackwell_by_default(self) -> None:
        text = (ROOT / "cmake" / "cuda.cmake").read_text()
        (architectures,) = re.findall(r'set\(INFERNO_CUDA_ARCHITECTURES "([^"]+)"', text)
        assert [int(re.sub(r"\D", "", name)) for name in architectures.split(";")] == [75, 80, 86, 89, 90, 100, 120]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not at hand")
class TestVulkan:
    def test_without_headers_it_says_what_to_install(self, tmp_path: Path) -> None:
        done, said = configured(tmp_path, "-DINFERNO_VULKAN=ON", f"-DVulkan_INCLUDE_DIR={tmp_path}/none")
        assert not done
        assert "INFERNO_VULKAN=ON needs" in said

    def test_headers_that_are_too_old_are_named(self, tmp_path: Path) -> None:
        headers = tmp_path / "old" / "vulkan"
        headers.mkdir(parents=True)
        (headers / "vulkan.h").touch()
        (headers / "vulkan_core.h").write_text("#define VK_HEADER_VERSION 239\n")
        for name in ("libvulkan.so", "glslc"):
            (tmp_path / name).touch(mode=0o755)
        done, said = configured(
            tmp_path,
            "-DINFERNO_VULKAN=ON",
            f"-DVulkan_INCLUDE_DIR={headers.parent}",
            f"-DVulkan_LIBRARY={tmp_path}/libvulkan.so",
            f"-DVulkan_GLSLC_EXECUTABLE={tmp_path}/glslc",
        )
        assert not done
        assert f"newer Vulkan headers than those in {headers.parent}" in said
        assert "third_party/vulkan/fetch.py" in said


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not at hand")
@pytest.mark.skipif(sys.platform == "darwin", reason="it has Metal")
def test_metal_is_refused_elsewhere(tmp_path: Path) -> None:
    done, said = configured(tmp_path, "-DINFERNO_METAL=ON")
    assert not done
    assert "INFERNO_METAL=ON works on macOS only." in said


def test_metal_is_on_by_default_on_macos_and_reaches_ggml() -> None:
    text = re.sub(r"\s+", " ", (ROOT / "CMakeLists.txt").read_text())
    assert 'if(APPLE) option(INFERNO_METAL "Offload to Apple GPUs" ON)' in text
    assert "set(GGML_METAL ${INFERNO_METAL})" in text
