"""The database: durable, one writer, migrated, clear about what is wrong with it."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from inferno import errors
from inferno.store import database as database_module
from inferno.store import migrate as migrate_module
from inferno.store.database import Database
from inferno.store.schema import batches, deliveries, metadata, users, webhooks
from inferno.webhooks import signing, target
from sqlalchemy import Connection, String, create_engine, func, insert, select

from tests import postgresql


def add_user(connection: Connection, name: str = "somebody") -> None:
    row = {"id": name, "username": name, "role": "user", "version": 0, "disabled": False, "created": 0.0}
    connection.execute(insert(users).values(row))


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(users)).scalar_one()


def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path / "new")
    database.write_now(add_user)
    database.close()
    again = Database("", data_dir=tmp_path / "new")
    assert again.read_now(count) == 1
    again.close()


@pytest.mark.parametrize("given", [True, False], ids=["by-url", "in-the-data-directory"])
def test_a_new_file_is_for_its_owner_only(tmp_path: Path, caplog: pytest.LogCaptureFixture, given: bool) -> None:
    database = Database(f"sqlite:///{tmp_path / 'given.db'}" if given else "", data_dir=tmp_path)
    database.write_now(add_user)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert any(name.endswith("-wal") for name in modes)
    assert set(modes.values()) == {0o600}
    assert "chmod" not in caplog.text
    database.close()


@pytest.mark.parametrize(("mode", "warns"), [(0o644, True), (0o602, True), (0o640, False)], ids=str)
def test_a_file_keeps_the_mode_that_somebody_gave_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    file = tmp_path / "inferno.db"
    file.touch()
    file.chmod(mode)
    Database(f"sqlite:///{file}").close()
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert (f"chmod 600 {file}" in caplog.text) == warns


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.ServiceUnavailable, match=r"^The database could not be opened: ") as caught:
        Database(f"sqlite:///{tmp_path / 'file' / 'inferno.db'}")
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("name", [":memory:", "file:inferno.db?mode=memory"])
def test_other_names_of_sqlite_are_refused_and_make_no_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.InvalidRequest, match=r"^store.url "):
        Database(f"sqlite:///{name}")
    assert list(tmp_path.iterdir()) == []


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path)

    def fail(connection: Connection) -> None:
        add_user(connection)
        raise errors.InvalidRequest("no")

    with pytest.raises(errors.InvalidRequest):
        database.write_now(fail)
    assert database.read_now(count) == 0
    database.close()


def test_writes_are_synchronous_and_logged(tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path)
    pragmas = ("journal_mode", "synchronous", "foreign_keys")
    values = database.read_now(lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas])
    assert values == ["wal", 2, 1]
    database.close()


def differences(connection: Connection) -> list[object]:
    def differ(_: object, __: object, ___: object, found: object, wanted: object) -> bool | None:
        """Alembic's opinion (None), but of lengths of text in SQLite, which mean nothing to it."""
        texts = isinstance(found, String) and isinstance(wanted, String)
        return False if texts and connection.dialect.name == "sqlite" else None

    options = {"compare_type": differ, "compare_server_default": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_migrations_make_the_schema_of_the_tables(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    """One by one, from a database that has none."""
    url = f"sqlite:///{tmp_path / 'inferno.db'}"
    if kind == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        if server is None:
            pytest.skip("PostgreSQL is not at hand: install it, or set INFERNO_TEST_POSTGRESQL_URL")
        url = postgresql.new_database(server)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    engine.dispose()
    database = Database(url)
    assert database.read_now(differences) == []
    database.close()


def test_what_may_be_given_has_room() -> None:
    """PostgreSQL holds texts to the length of their column, which SQLite does not."""
    bounds = {
        webhooks.c.secret: signing.MAX_SECRET_CHARACTERS,
        webhooks.c.previous_secret: signing.MAX_SECRET_CHARACTERS,
        batches.c.webhook_secret: signing.MAX_SECRET_CHARACTERS,
        deliveries.c.secret: signing.MAX_SECRET_CHARACTERS,
        webhooks.c.url: target.MAX_URL_CHARACTERS,
        batches.c.webhook_url: target.MAX_URL_CHARACTERS,
        deliveries.c.url: target.MAX_URL_CHARACTERS,
    }
    assert {column: column.type.length for column in bounds} == bounds


@pytest.mark.acceptance("G4", "X1")
def test_nul_in_text_is_refused_by_name(any_database: Database) -> None:
    """PostgreSQL cannot keep it. Nothing of the transaction stays."""

    def write(connection: Connection) -> None:
        add_user(connection)
        add_user(connection, "a\0b")

    def look_up(connection: Connection) -> None:
        connection.execute(select(users).where(users.c.role == "user", users.c.username == "a\0b"))

    for work, field in ((write, "id"), (look_up, "username")):
        with pytest.raises(errors.InvalidRequest, match=f"^{field} must not have the character NUL") as caught:
            any_database.write_now(work)
        assert caught.value.field == field
    assert any_database.read_now(count) == 0


def test_an_empty_database_gets_the_newest_schema(tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path)
    assert database.read_now(differences) == []
    version = database.read_now(lambda c: c.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all())
    assert version == [migrate_module.newest()]
    database.close()


def test_the_newest_revision_is_that_of_the_scripts() -> None:
    (head,) = ScriptDirectory(str(migrate_module.SCRIPTS)).get_heads()
    assert migrate_module.newest() == head


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    Database("", data_dir=tmp_path).close()
    with sqlite3.connect(tmp_path / "inferno.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = 'from-the-future'")
    raw.close()
    with pytest.raises(errors.ServiceUnavailable, match="newer version"):
        Database("", data_dir=tmp_path)


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_garbage_is_not_silently_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "inferno.db").write_bytes(content)
    with pytest.raises(errors.ServiceUnavailable, match="database"):
        Database("", data_dir=tmp_path)
    assert (tmp_path / "inferno.db").read_bytes() == content


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        Database(url)
    assert caught.value.field == "store.url"


def test_another_process_that_writes_is_waited_for_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database("", data_dir=tmp_path)
    program = f"""
        import sys
        from pathlib import Path
        from inferno.store.database import Database
        def hold(connection):
            print("holding", flush=True)
            sys.stdin.readline()
        Database("", data_dir=Path({str(tmp_path)!r})).write_now(hold)
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "holding\n"
        database._lock.timeout = 0.2  # type: ignore[attr-defined]
        with pytest.raises(errors.ServiceUnavailable, match="busy"):
            database.write_now(add_user)
        assert database.read_now(count) == 0  # readers do not wait
        database._lock.timeout = database_module.LOCK_TIMEOUT_S  # type: ignore[attr-defined]
        other.stdin.write("\n")
        other.stdin.flush()
        database.write_now(add_user)
    assert database.read_now(count) == 1
    database.close()


def test_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    Database("", data_dir=tmp_path).close()
    program = f"""
        import sys
        from pathlib import Path
        sys.path[:0] = {[str(Path(__file__).parents[2])]!r}
        from inferno.store import database as database_module
        from inferno.store.database import Database
        from tests.unit.test_database import add_user
        database_module.LOCK_TIMEOUT_S = 150  # the lock is not fair, and a slow disk may starve one of three
        database = Database("", data_dir=Path({str(tmp_path)!r}))
        for i in range(25):
            database.write_now(lambda connection: add_user(connection, sys.argv[1] + str(i)))
        database.close()
    """
    writers = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), name]) for name in "abc"]
    assert [writer.wait(160) for writer in writers] == [0, 0, 0]
    database = Database("", data_dir=tmp_path)
    assert database.read_now(count) == 75
    assert database.read_now(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar()) == "ok"
    database.close()


def test_servers_that_start_together_migrate_once(postgresql_server: str | None) -> None:
    if postgresql_server is None:
        pytest.skip("PostgreSQL is not at hand: install it, or set INFERNO_TEST_POSTGRESQL_URL")
    url = postgresql.new_database(postgresql_server)
    program = f"""
        import sys
        from inferno.store.database import Database
        print("here", flush=True)
        sys.stdin.readline()
        Database({url!r}).close()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    pipe = subprocess.PIPE
    starting = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    for server in starting:
        assert server.stdout is not None
        assert server.stdout.readline() == "here\n"
    for server in starting:
        assert server.stdin is not None
        server.stdin.write("\n")
        server.stdin.flush()
    assert [(server.communicate(timeout=60)[1], server.returncode) for server in starting] == [("", 0)] * 4


def test_many_coroutines_share_it(tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path)

    async def all_at_once() -> int:
        await asyncio.gather(*(database.write(lambda c, i=i: add_user(c, str(i))) for i in range(20)))
        return await database.read(count)

    assert asyncio.run(all_at_once()) == 20
    database.close()


@pytest.mark.acceptance("X1")
def test_reasons_of_postgresql_are_for_the_log(postgresql_server: str | None, caplog: pytest.LogCaptureFixture) -> None:
    if postgresql_server is None:
        pytest.skip("PostgreSQL is not at hand: install it, or set INFERNO_TEST_POSTGRESQL_URL")
    database = Database(postgresql.new_database(postgresql_server))
    for work, verb in ((database.read_now, "read"), (database.write_now, "written")):
        with pytest.raises(errors.ServiceUnavailable) as caught:
            work(lambda c: c.exec_driver_sql("SELECT 'secret'::integer"))
        assert caught.value.message == f"The database could not be {verb}."
    assert caplog.text.count('invalid input syntax for type integer: "secret"') == 2
    database.close()


@pytest.mark.acceptance("X1")
def test_errors_do_not_show_statements_or_paths(tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path)
    with pytest.raises(errors.ServiceUnavailable) as caught:
        database.read_now(lambda c: c.exec_driver_sql("SELECT secret FROM nowhere"))
    assert "SELECT" not in caught.value.message
    assert str(tmp_path) not in caught.value.message
    database.close()
