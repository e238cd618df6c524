#!/usr/bin/env python3
"""Bring Vulkan and SPIR-V headers into the build's cache and print the directory, for -DINFERNO_VULKAN_HEADERS=.

For Debian 12, whose own headers are too old for llama.cpp. apt downloads the packages of Debian 13 that `packages.txt`
pins, with lists and cache of its own; their hashes are checked and they are unpacked, never installed. The cache is
`$INFERNO_CACHE_DIR`, else `$XDG_CACHE_HOME/inferno`, else `~/.cache/inferno`. A second run touches no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

PACKAGES = Path(__file__).resolve().parent / "packages.txt"
SOURCES = """Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


class Package(NamedTuple):
    name: str
    version: str
    sha256: str


def pinned() -> list[Package]:
    lines = (line.split() for line in PACKAGES.read_text().splitlines())
    return [Package(*words) for words in lines if words and words[0] != "#"]


def cache_dir() -> Path:
    if own := os.environ.get("INFERNO_CACHE_DIR"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "inferno"


def download(packages: list[Package], into: Path) -> None:
    (into / "debian.sources").write_text(SOURCES)
    for name in ("lists/partial", "cache/archives/partial"):
        (into / name).mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": into / "debian.sources",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": into / "lists",
        "Dir::Cache": into / "cache",
        "APT::Sandbox::User": "",  # the directory is ours alone
        "APT::Architecture": "amd64",  # headers are the same for all
        "APT::Architectures": "amd64",
    }
    apt = ["apt-get", "--quiet", *(f"-o{name}={value}" for name, value in options.items())]
    run([*apt, "update"], into)
    run([*apt, "download", *(f"{package.name}={package.version}" for package in packages)], into)


def run(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{command[0]} failed; see the lines above.")


def checked(package: Package, directory: Path) -> Path:
    (archive,) = directory.glob(f"{package.name}_*.deb")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        sys.exit(f"{archive.name} has the sha256 {found}, not the pinned {package.sha256}.")
    return archive


def fetch(target: Path) -> None:
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
        sys.exit(f"This needs {' and '.join(missing)}; elsewhere than on Debian install Vulkan headers 1.4 or newer.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        directory = Path(temporary)
        packages = pinned()
        download(packages, directory)
        for package in packages:
            run(["dpkg-deb", "-x", str(checked(package, directory)), "unpacked"], directory)
        try:
            (directory / "unpacked" / "usr").rename(target)
        except OSError:
            if not complete(target):  # else another build was faster
                raise


def complete(target: Path) -> bool:
    return (target / "include" / "vulkan" / "vulkan.hpp").is_file()


def main() -> None:
    pin = hashlib.sha256(PACKAGES.read_bytes()).hexdigest()
    target = cache_dir() / f"vulkan-headers-{pin[:12]}"
    if not complete(target):
        fetch(target)
    print(target)


if __name__ == "__main__":
    main()
