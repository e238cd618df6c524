"""pip, as a program: its options, index and proxy settings apply."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from inferno import errors


def run(arguments: Sequence[str], what: str, python: Path | None = None) -> None:
    """Of `python`, by default this one. Raises ServiceUnavailable with pip's own words about `what`."""
    command = [str(python or sys.executable), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        said = [line for line in result.stderr.splitlines() if line.strip()] or ["pip says nothing"]
        lines = [line for line in said if line.startswith("ERROR")] or said
        raise errors.ServiceUnavailable(f"{what} could not be downloaded: {lines[-1]}")
