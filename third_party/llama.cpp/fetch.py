#!/usr/bin/env python3
"""Bring the pinned llama.cpp source into a cache outside the source tree and print where it is.

The cache is `$INFERNO_CACHE_DIR`, else `$XDG_CACHE_HOME/inferno`, else `~/.cache/inferno`. A second run finds the
unpacked source and touches no network. `--into DIR` also copies what a build needs there (used to make a source
distribution).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
INSIDE = PurePosixPath("vendor/llama.cpp")
CARRIED = ("CMakeLists.txt", "LICENSE", "AUTHORS", "licenses", "cmake", "common", "ggml", "include", "src", "vendor")
FIXED_TIME = 1577836800  # 2020-01-01: unpacked files never look newer than the build


def pinned_hash() -> str:
    match = re.search(r"--hash=sha256:([0-9a-f]{64})", REQUIREMENTS.read_text())
    if match is None:
        sys.exit(f"{REQUIREMENTS.name} has no sha256")
    return match[1]


def cache_dir() -> Path:
    if own := os.environ.get("INFERNO_CACHE_DIR"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "inferno"


def download(into: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "llama-cpp-python", "--require-hashes"]
    command += ["--dest", str(into), "-r", str(REQUIREMENTS)]
    # pip asks the package's build backend for its metadata. Inside a build of this project the backend is at hand;
    # elsewhere pip brings one for itself.
    if importlib.util.find_spec("scikit_build_core") is not None:
        command.append("--no-build-isolation")
    result = subprocess.run(command, stdout=sys.stderr)
    archives = list(into.glob("*.tar.gz"))
    if result.returncode != 0 or len(archives) != 1:
        sys.exit(
            "Could not download the pinned llama.cpp source; pip's own words are above. It needs a package index once "
            f"and pip in {sys.executable}. Without a network, set INFERNO_CACHE_DIR to a cache filled elsewhere, or "
            "-DINFERNO_LLAMA_CPP_DIR to a llama.cpp checkout."
        )
    return archives[0]


def verify(archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != pinned_hash():
        sys.exit(f"{archive.name}: sha256 {digest} is not the pinned one")


def member_path(name: str) -> PurePosixPath | None:
    """The member's path below vendor/llama.cpp, or None when it is not part of it."""
    parts = PurePosixPath(name).parts[1:]  # without the sdist's top directory
    if parts[: len(INSIDE.parts)] != INSIDE.parts or ".." in parts:
        return None
    inside = PurePosixPath(*parts[len(INSIDE.parts) :])
    # A `.git` file left over from a submodule makes CMake wait for an index that does not exist.
    return None if inside.parts[:1] in ((), (".git",)) else inside


def unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            inside = member_path(member.name)
            if inside is None or not member.isfile():
                continue
            path = target / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with source, path.open("wb") as out:
                shutil.copyfileobj(source, out)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)
            os.utime(path, (FIXED_TIME, FIXED_TIME))


def fetch(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as temporary:
        archive = download(Path(temporary))
        verify(archive)
        unpacked = Path(temporary) / "source"
        unpack(archive, unpacked)
        try:
            unpacked.rename(target)
        except OSError:
            if not complete(target):  # else another build was faster
                raise


def complete(target: Path) -> bool:
    return (target / "include" / "llama.h").is_file()


def carry(source: Path, into: Path) -> None:
    shutil.rmtree(into, ignore_errors=True)
    for name in CARRIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, into / name)
        else:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, into / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="also copy what a build needs into this directory")
    into = parser.parse_args().into
    target = cache_dir() / f"llama.cpp-{pinned_hash()[:12]}"
    if not complete(target):
        fetch(target)
    if into is not None:
        carry(target, into)
    print(into or target)


if __name__ == "__main__":
    main()
