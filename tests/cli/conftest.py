"""The command line as a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


@pytest.fixture
def inferno(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs a command with a home of its own, on a terminal of so many columns."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("INFERNO_")}
    environ |= {"INFERNO_DATA_DIR": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def run(
        *arguments: str, stdin: str | None = None, columns: int = 80, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "inferno.cli.main", *arguments]
        whole = environ | {"COLUMNS": str(columns)} | dict(env or {})
        return subprocess.run(command, env=whole, input=stdin or "", capture_output=True, text=True, timeout=120)

    return run
