"""What keeps the cached prompts of users apart."""

from __future__ import annotations

import hmac
import secrets
import time

from sqlalchemy import Connection, insert, select

from inferno.store import schema

_PURPOSE = "cache_salt"


def salt_key(connection: Connection) -> bytes:
    """Of this database: prompts that outlive the server are found again. Makes it when there is none (needs a
    transaction that may write)."""
    table = schema.secrets
    query = select(table.c.value).where(table.c.purpose == _PURPOSE).order_by(table.c.created, table.c.id).limit(1)
    if (known := connection.execute(query).scalar()) is not None:
        return bytes.fromhex(known)
    value = secrets.token_bytes(32)
    row = {"id": secrets.token_hex(8), "purpose": _PURPOSE, "value": value.hex(), "created": time.time()}
    connection.execute(insert(table).values(row))
    return value


def salt(key: bytes, user_id: str) -> int:
    """64 bits that nobody without the key can compute."""
    return int.from_bytes(hmac.digest(key, user_id.encode(), "sha256")[:8], "big")
