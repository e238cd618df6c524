"""Bringing a database to the schema of this version, with Alembic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, insert, inspect, select

from inferno import errors
from inferno.store import schema

SCRIPTS = Path(__file__).parent / "migrations"
#: The number of the lock in PostgreSQL: "inferno" as bytes, which no other program will think of.
_MIGRATING = 0x69_6E_66_65_72_6E_6F
#: Alembic's own table, with one row: the revision that the database is at.
_REVISION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def migrate(engine: Engine) -> None:
    """Make the tables of an empty database as they are now, or run the migrations that are missing, each in a
    transaction of its own: a process killed in between goes on at the next start. Raises ServiceUnavailable for a
    database made by a newer version."""
    with engine.connect() as connection, _alone(connection):
        is_empty = not inspect(connection).has_table(_REVISION.name)
        current = None if is_empty else connection.execute(select(_REVISION)).scalar()
        connection.rollback()
        if is_empty:
            _create(connection)
        elif current != newest():  # Alembic, which takes 10 MiB, is needed for nothing else
            _upgrade(connection, current)


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


def newest() -> str:
    """The revision that this version wants: scripts are named by their revisions, which rise."""
    return max(script.name.partition("_")[0] for script in (SCRIPTS / "versions").glob("[0-9]*.py"))


def _create(connection: Connection) -> None:
    with connection.execution_options(writes=True).begin():
        schema.metadata.create_all(connection, checkfirst=False)
        _REVISION.create(connection)
        connection.execute(insert(_REVISION).values(version_num=newest()))


def _upgrade(connection: Connection, current: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    try:
        if current is not None:
            ScriptDirectory.from_config(config).get_revision(current)
    except CommandError:
        raise errors.ServiceUnavailable(
            "The database was made by a newer version of Inferno; install that version, or restore a backup."
        ) from None
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
