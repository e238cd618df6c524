"""A PostgreSQL server for tests: the one that INFERNO_TEST_POSTGRESQL_URL names, else one of the machine's own programs
in a directory of its own, else none."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

_NUMBERS = itertools.count()


def _programs() -> Path | None:
    """Where initdb and pg_ctl are; Debian keeps them off the PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@contextlib.contextmanager
def server() -> Iterator[str | None]:
    """The URL of a server in which databases may be made."""
    if given := os.environ.get("INFERNO_TEST_POSTGRESQL_URL"):
        yield given
    elif (programs := _programs()) is None:
        yield None
    else:
        with tempfile.TemporaryDirectory(prefix="pg-") as directory, _running(programs, Path(directory)) as url:
            yield url


@contextlib.contextmanager
def _running(programs: Path, directory: Path) -> Iterator[str]:
    """It listens on a socket in `directory` only."""
    as_whom: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses to be
        shutil.chown(directory, "postgres")
        as_whom = ["runuser", "-u", "postgres", "--"]
    data = directory / "data"

    def run(program: str, *arguments: str) -> None:
        command = [*as_whom, str(programs / program), "-D", str(data), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory)

    run("initdb", "-A", "trust", "-U", "inferno", "-E", "UTF8", "--no-sync")
    run("pg_ctl", "-w", "-l", str(directory / "log"), "-o", f"-k {directory} -c listen_addresses=''", "start")
    try:
        yield f"postgresql://inferno@/postgres?host={directory}"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")


def new_database(server_url: str) -> str:
    """The URL of an empty database."""
    name = f"test_{os.getpid()}_{next(_NUMBERS)}"
    engine = create_engine(make_url(server_url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)
