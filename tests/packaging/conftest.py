"""The installed wheel: these tests need one, `make test-wheel` brings it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import inferno
import pytest

PACKAGE = Path(inferno.__file__).parent
#: Where auditwheel puts what it brings along.
BROUGHT = PACKAGE.parent / "inferno_server.libs"


class Copy(NamedTuple):
    """The package in a directory of its own, to be changed."""

    directory: Path

    @property
    def variants(self) -> dict[str, Path]:
        return {path.stem.removeprefix("libggml-cpu-"): path for path in self.libraries.glob("libggml-cpu-*.so")}

    @property
    def libraries(self) -> Path:
        return self.directory / "inferno" / "lib"

    def keep_variants(self, *names: str) -> None:
        for name, path in self.variants.items():
            if name not in names:
                path.unlink()

    def run(
        self, *arguments: str, cwd: Path | None = None, environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python ARGUMENTS` with the copy's package."""
        env = {"PYTHONPATH": str(self.directory), "HOME": str(self.directory), **(environ or {})}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def binaries() -> list[Path]:
    """Every compiled file of the distribution."""
    files = [Path(str(file.locate())) for file in distribution("inferno-server").files or ()]
    return [path for path in files if ".so" in path.name]


@pytest.fixture
def package(tmp_path: Path) -> Copy:
    for source in (PACKAGE, BROUGHT):
        shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return Copy(tmp_path)
