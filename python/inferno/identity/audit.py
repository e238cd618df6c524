"""The audit log: who did what, and what came of it. No prompts, no texts, no secrets.

Each entry's hash is SHA-256 over the entry and the hash before it. Whoever edits or removes an entry breaks the chain
from there on, which `verify` finds. Against the whole chain being written anew, keep the newest hash elsewhere:
`inferno security audit verify` prints it.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, select

from inferno.store.schema import audit_log

_GENESIS = "0" * 64
_LOCK = 0x696E6665726E6F  # any number that nobody else in the database uses


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """`time` in UTC seconds since 1970; `actor` a username, `cli` or `server`."""

    seq: int
    time: float
    actor: str
    address: str | None
    action: str
    target: str | None
    result: str
    details: str
    previous: str
    hash: str


def record(
    connection: Connection,
    actor: str,
    action: str,
    *,
    target: str | None = None,
    result: str = "ok",
    address: str | None = None,
    **details: Any,
) -> None:
    """Append an entry, in the transaction of what it tells of: what cannot be audited does not happen."""
    _one_at_a_time(connection)
    last = connection.execute(select(audit_log).order_by(audit_log.c.seq.desc()).limit(1)).first()
    row = {
        "seq": 1 if last is None else last.seq + 1,
        "time": round(time.time(), 3),
        "actor": _kept(actor, 64),
        "address": address,
        "action": action,
        "target": None if target is None else _kept(target, 256),
        "result": result,
        "details": json.dumps(details, sort_keys=True, ensure_ascii=True),
        "previous": _GENESIS if last is None else last.hash,
    }
    connection.execute(insert(audit_log).values(hash=_hash(row), **row))


def _kept(text: str, length: int) -> str:
    """What a column takes of what anybody may have sent."""
    return text[:length].replace("\0", "\ufffd")


def _one_at_a_time(connection: Connection) -> None:
    """SQLite has one writer anyway; in PostgreSQL two would append after the same entry."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _hash(row: dict[str, Any]) -> str:
    text = json.dumps({key: value for key, value in row.items() if key != "hash"}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def entries(connection: Connection, *, limit: int = 100, action: str | None = None) -> list[Entry]:
    """The newest first; `action` may be the beginning of one, such as `key.`."""
    query = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit)
    if action is not None:
        query = query.where(audit_log.c.action.startswith(action, autoescape=True))
    return [_entry(row) for row in connection.execute(query)]


def verify(connection: Connection) -> tuple[int | None, int, str]:
    """The first entry that does not fit (None when all do), the number of entries, and the newest hash."""
    previous, expected = _GENESIS, 1
    query = select(audit_log).order_by(audit_log.c.seq).execution_options(yield_per=1000)
    with connection.execute(query) as rows:
        for row in rows:
            entry = dict(row._mapping)
            if entry["seq"] != expected or entry["previous"] != previous or entry["hash"] != _hash(entry):
                break
            previous, expected = entry["hash"], expected + 1
    count = _count(connection)
    return None if expected > count else expected, count, previous


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(audit_log)).scalar_one()


def _entry(row: Row[tuple[object, ...]]) -> Entry:
    return msgspec.convert(row, Entry, from_attributes=True)
