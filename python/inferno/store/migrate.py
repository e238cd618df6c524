"""Bringing a database to the schema of this version, with Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from inferno import errors

SCRIPTS = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> None:
    """Run the migrations that are missing, each in a transaction of its own: a process killed in between goes on at the
    next start. Raises ServiceUnavailable for a database made by a newer version."""
    with engine.connect() as connection:
        current = _revision(connection)
        connection.rollback()
        if current == newest():
            return  # as nearly always, and Alembic, which takes 10 MiB, is not needed
        _upgrade(connection, current)


def newest() -> str:
    """The revision that this version wants: scripts are named by their revisions, which rise."""
    return max(script.name.partition("_")[0] for script in (SCRIPTS / "versions").glob("[0-9]*.py"))


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


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
