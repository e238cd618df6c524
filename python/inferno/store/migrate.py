"""Bringing a database to the schema of this version, with Alembic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine

from inferno import errors

_SCRIPTS = Path(__file__).parent / "migrations"
#: The number of the lock in PostgreSQL: "inferno" as bytes, which no other program will think of.
_MIGRATING = 0x69_6E_66_65_72_6E_6F


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, each in a transaction of its own: a process killed in between goes on at the
    next start. Raises ServiceUnavailable for a database made by a newer version."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    script = ScriptDirectory.from_config(config)
    with engine.connect() as connection, _alone(connection):
        current = MigrationContext.configure(connection).get_current_revision()
        if current == script.get_current_head():
            return
        if current is not None:
            _refuse_newer(script, current)
        connection.rollback()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextlib.contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Servers that share a database in PostgreSQL may start together. SQLite's lock file is held already."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_MIGRATING})")
    connection.rollback()  # ends the snapshot from before the wait; the lock stays
    try:
        yield
    finally:
        connection.rollback()
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_MIGRATING})")


def _refuse_newer(script: ScriptDirectory, current: str) -> None:
    try:
        script.get_revision(current)
    except CommandError:
        raise errors.ServiceUnavailable(
            "The database was made by a newer version of Inferno; install that version, or restore a backup."
        ) from None
