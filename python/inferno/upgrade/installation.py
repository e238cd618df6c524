"""What is installed where, asked of the Python in question: it need not be the one that runs this."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import msgspec
from packaging.version import Version

from inferno import errors

_PROBE = """\
import importlib.metadata, importlib.util, json, re, sys, sysconfig
packages, found = {}, None
for one in importlib.metadata.distributions():
    if one.name and one.version:
        packages.setdefault(re.sub("[-_.]+", "-", one.name).lower(), one.version)
try:
    found = importlib.metadata.distribution(sys.argv[1])
except importlib.metadata.PackageNotFoundError:
    pass
print(json.dumps({
    "prefix": sys.prefix,
    "scripts": sysconfig.get_path("scripts"),
    "is_virtual": sys.prefix != sys.base_prefix,
    "has_pip": importlib.util.find_spec("pip") is not None,
    "version": found and found.version,
    "direct_url": json.loads(found and found.read_text("direct_url.json") or "null"),
    "packages": packages,
}))
"""
_PATIENCE_S = 60


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """One distribution in one Python environment. `direct_url` is its direct_url.json (PEP 610), which only those
    have that do not come from an index; `packages` maps the environment's distributions to their versions."""

    python: Path
    package: str
    prefix: Path
    scripts: Path
    is_virtual: bool
    has_pip: bool
    version: str
    direct_url: dict[str, Any] | None
    packages: dict[str, str]

    @property
    def refusal(self) -> str | None:
        """Why this installation is not ours to change; None when it is."""
        if (self.direct_url or {}).get("dir_info", {}).get("editable"):
            return f"{self.package} is an editable install: upgrade its checkout instead (git pull, make setup)."
        if self.direct_url and not str(self.direct_url.get("url", "")).endswith(".whl"):
            return (
                f"{self.package} was built from source here, with options of its own, which a wheel of an index would "
                "not have: upgrade it the way it was installed."
            )
        if not self.is_virtual:
            return (
                f"{self.package} is not in a virtual environment but among its Python's own packages, which another "
                "program may manage: upgrade it the way it was installed."
            )
        if not self.has_pip:
            return "This virtual environment has no pip: upgrade with the program that made it."
        return None

    def state_dir(self, data_dir: Path) -> Path:
        """Where the state of this environment's upgrades is kept: environments may share a data directory."""
        return data_dir / "upgrade" / hashlib.sha256(str(self.prefix).encode()).hexdigest()[:16]


def inspect(python: Path, package: str) -> Installation:
    """Raises NotFound when `package` is not installed there, InvalidRequest when `python` is no Python."""
    answer = _answer(python, package)
    if answer["version"] is None:
        raise errors.NotFound(f"{package} is not installed in {answer['prefix']}.")
    answer |= {"python": str(python), "package": package, "version": str(Version(answer["version"]))}
    return msgspec.convert(answer, Installation, dec_hook=_path)


def packages_of(python: Path) -> dict[str, str]:
    """All distributions there, by their normalised names, with their versions."""
    packages: dict[str, str] = _answer(python, "pip")["packages"]
    return packages


def _answer(python: Path, package: str) -> dict[str, Any]:
    try:
        command = [str(python), "-I", "-c", _PROBE, package]
        ran = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL)
        return msgspec.json.decode(ran.stdout, type=dict[str, Any])
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError):
        raise errors.InvalidRequest(f"{python} does not answer as a Python does.", field="python") from None


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
