#!/usr/bin/env python3
"""Print what a Vulkan build and its tests need and this machine lacks; nothing when all is there."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

DRIVERS = ("/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d")


def missing() -> Iterator[str]:
    if shutil.which("glslc") is None:
        yield "the shader compiler (Debian: glslc)"
    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        yield "the Vulkan loader (Debian: libvulkan1)"
    if not any(Path(directory).glob("*.json") for directory in DRIVERS):
        yield "a Vulkan driver (Debian: mesa-vulkan-drivers)"


if __name__ == "__main__":
    print(", ".join(missing()))
