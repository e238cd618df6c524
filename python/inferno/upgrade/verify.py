"""Does an installed version work? Asked of processes of their own: what is loaded here is the old one."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from packaging.version import InvalidVersion, Version

from inferno.upgrade.installation import Installation

_PATIENCE_S = 60
_IMPORT = "import inferno, inferno._core; print(inferno.__version__)"


def problem(installation: Installation, version: str) -> str | None:
    """Why `version` does not work in that environment; None when it does: its module and its engine can be imported,
    its command runs, and both say that they are `version`."""
    module = _said((installation.python, "-I", "-c", _IMPORT), "import inferno", version)
    return module or _said((installation.scripts / "inferno", "--version"), "inferno --version", version)


def _said(command: Sequence[str | Path], name: str, version: str) -> str | None:
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PATIENCE_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"`{name}` did not end within {_PATIENCE_S} seconds"
    except OSError as error:
        return f"`{name}` cannot be run: {error.strerror}"
    if ran.returncode != 0:
        return f"`{name}` failed: {_last_line(ran.stderr) or f'status {ran.returncode}'}"
    said = _last_line(ran.stdout)
    return None if _is_version(said.rpartition(" ")[2], version) else f"`{name}` says {said!r}, not {version}"


def _is_version(text: str, version: str) -> bool:
    try:
        return Version(text) == Version(version)
    except InvalidVersion:
        return False


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(c for c in lines[-1] if c.isprintable())[:500] if lines else ""
