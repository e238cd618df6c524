"""Connections and transactions.

SQLite runs in WAL mode with synchronous=FULL: what a transaction wrote is on the disk when it returns. Two connections
that write or checkpoint at the same instant can corrupt the file in SQLite 3.7.0 to 3.51.2 (the WAL-reset bug, mended
in 3.51.3), so every transaction that writes holds a lock file, whichever process it runs in. Readers need none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from inferno import errors
from inferno.store.migrate import migrate

log = logging.getLogger(__name__)

T = TypeVar("T")
Lock: TypeAlias = AbstractContextManager[object]

#: Seconds to wait for another writer before a transaction is given up.
LOCK_TIMEOUT_S = 10.0
#: How long who can wait leaves a database alone that does not answer.
RETRY_S = 1.0
#: How long a server that stops waits for it to take what is left; to it this server is then one that was killed.
LAST_WRITE_S = 5.0
_READERS = 2
#: SQL dialects that there are tests for.
_DIALECTS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


class Database:
    """Transactions are functions of a connection. They run in threads of the database's own: one that writes, in
    order, and some that read. Safe to use from any thread and from an event loop."""

    def __init__(self, url: str, *, data_dir: Path | None = None) -> None:
        """`url` is `sqlite:///FILE` or `postgresql://...`; empty is `inferno.db` in `data_dir`.

        The tables are made, or brought up to date. Raises ServiceUnavailable when the database cannot be opened, is
        damaged, or belongs to a newer version.
        """
        self._engine = _engine(url or _default_url(data_dir))
        self._lock, self._read_lock = _locks(self._engine)
        self._writer = ThreadPoolExecutor(1, "database-writer")
        self._readers = ThreadPoolExecutor(_READERS, "database-reader")
        with _told("opened"), self._lock:
            if self.is_sqlite and self._engine.url.database:
                _make_private(Path(self._engine.url.database))
            self._check_integrity()
            migrate(self._engine)

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` in a transaction that is durable on return. Blocks; for the command line and start-up.

        Raises ServiceUnavailable when the database is locked, full or gone; then nothing was written.
        """
        with _told("written", self.is_sqlite), self._lock, self._engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                return work(connection)

    def read_now(self, work: Callable[[Connection], T]) -> T:
        """The result of `work` on one consistent snapshot. Blocks. Raises ServiceUnavailable."""
        with _told("read", self.is_sqlite), self._read_lock, self._engine.connect() as connection, connection.begin():
            return work(connection)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """`write_now` in the writing thread. A caller that is cancelled does not undo it."""
        return await asyncio.wrap_future(self._writer.submit(self.write_now, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """`read_now` in a reading thread."""
        return await asyncio.wrap_future(self._readers.submit(self.read_now, work))

    def close(self) -> None:
        """Let the transactions that were asked for end, then close. Idempotent."""
        self._writer.shutdown()
        self._readers.shutdown()
        with contextlib.suppress(Timeout), self._lock:  # the last connection to close writes a checkpoint
            self._engine.dispose()

    def _check_integrity(self) -> None:
        """A file that is no database is told now, not by the first request."""
        if self.is_sqlite:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA schema_version").scalar()
                found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if found != "ok":
                raise errors.ServiceUnavailable("The database is damaged; restore it from a backup.")


def _locks(engine: Engine) -> tuple[Lock, Lock]:
    """What a transaction that writes holds, and one that reads. A database in memory has but one connection."""
    if engine.dialect.name != "sqlite":
        return contextlib.nullcontext(), contextlib.nullcontext()
    if file := engine.url.database:
        return FileLock(f"{file}.lock", timeout=LOCK_TIMEOUT_S, mode=0o600), contextlib.nullcontext()
    only = threading.RLock()
    return only, only


def _default_url(data_dir: Path | None) -> str:
    if data_dir is None:
        return "sqlite://"  # in memory, for tests
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise errors.ServiceUnavailable(f"The data directory {data_dir} cannot be used: {error.strerror}.") from None
    return f"sqlite:///{data_dir / 'inferno.db'}"


def _make_private(file: Path) -> None:
    """It has what tokens are signed with. SQLite gives the files beside it the same mode. One that is there already
    keeps the mode that somebody gave it."""
    file.touch(mode=0o600)
    if file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        log.warning("others on this machine can read or write the database, which has secrets: chmod 600 %s", file)


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        driver = _DIALECTS[parsed.get_backend_name()]
    except (ArgumentError, KeyError):
        raise errors.InvalidRequest("store.url must be sqlite:///FILE or postgresql://...", field="store.url") from None
    # SQLite's other names for memory and for files are none of a file that can be locked, and be kept private.
    if driver == "sqlite" and (parsed.database or "").startswith((":", "file:")):
        raise errors.InvalidRequest("store.url must name a file of SQLite by its path.", field="store.url")
    try:
        engine = create_engine(parsed.set(drivername=driver), **_pool(parsed.database if driver == "sqlite" else "-"))
    except ModuleNotFoundError:
        raise errors.ServiceUnavailable(
            "PostgreSQL needs the package psycopg: pip install 'inferno-server[postgresql]'."
        ) from None
    event.listen(engine, "before_cursor_execute", _refuse_nul)
    if driver == "sqlite":
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
    return engine


def _pool(file: str | None) -> dict[str, Any]:
    """An SQLite database in memory lives as long as its one connection."""
    if file:
        return {"pool_pre_ping": True, "pool_size": 1 + _READERS}
    from sqlalchemy.pool import StaticPool

    return {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # sqlite3 would begin transactions of its own, and not for DDL
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={int(LOCK_TIMEOUT_S * 1000)}",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _refuse_nul(*event_arguments: Any) -> None:
    """PostgreSQL keeps no text with this character, so SQLite is not given any either. Raises InvalidRequest naming the
    column, which SQLAlchemy names parameters after."""
    context = event_arguments[4]
    for parameters in getattr(context, "compiled_parameters", ()):  # statements without parameters have none
        for name, value in parameters.items():
            if isinstance(value, str) and "\0" in value:
                field = re.sub(r"_\d+$", "", name)
                raise errors.InvalidRequest(f"{field} must not have the character NUL.", field=field)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def _told(verb: str, says_why: bool = True) -> Iterator[None]:
    """What goes wrong in a database, in one sentence without its paths or statements. PostgreSQL's reasons name hosts,
    sockets and values: they are for who starts a server, and for the log."""
    try:
        yield
    except Timeout:
        raise errors.ServiceUnavailable("The database is busy; try again.", retry_after=1) from None
    except (SQLAlchemyError, OSError) as error:
        cause = _cause(error)
        if not says_why:
            log.error("the database could not be %s: %s", verb, cause)
        why = f": {cause}" if says_why else ""
        raise errors.ServiceUnavailable(f"The database could not be {verb}{why}.", retry_after=5) from error


def _cause(error: SQLAlchemyError | OSError) -> str:
    said = error.strerror if isinstance(error, OSError) else getattr(error, "orig", None)
    return str(said or error).splitlines()[0][:200]
