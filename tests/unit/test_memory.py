"""What processes do without: each import here would be megabytes of every server, for things few of them do."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SERVES = """
import pathlib, tempfile, inferno.cli.serve
from inferno.store.database import Database
with tempfile.TemporaryDirectory() as directory:
    Database("", data_dir=pathlib.Path(directory)).close()
"""


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        (_SERVES, {"alembic", "httpx", "jwt", "numpy", "pygments"}),
        ("import inferno.engine.worker_main", {"asyncio", "ssl", "numpy"}),
    ],
    ids=["server", "worker"],
)
def test_what_is_not_imported(program: str, absent: set[str]) -> None:
    program += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert absent & set(done.stdout.split()) == set()


def test_no_password_is_hashed_to_start() -> None:
    """That takes 19 MiB, which would be the highest there is for long."""
    program = "import argon2; argon2.PasswordHasher.hash = None; import inferno.identity.passwords"
    subprocess.run([sys.executable, "-c", program], check=True)
