"""What this server signs with and derives from: 256 random bits each, kept in the database by purpose."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Connection, insert, select, update

from inferno.store import schema

_TABLE = schema.secrets


def valid(connection: Connection, purpose: str) -> dict[str, bytes]:
    """Id -> secret, the newest first. Makes the first one when there is none (needs a transaction that may write
    then)."""
    query = select(_TABLE).where(_TABLE.c.purpose == purpose, _TABLE.c.retired.is_(None))
    found = connection.execute(query.order_by(_TABLE.c.created.desc()))
    return {row.id: bytes.fromhex(row.value) for row in found} or _made(connection, purpose)


def replace(connection: Connection, purpose: str) -> None:
    """Retires all there are and makes another."""
    connection.execute(update(_TABLE).where(_TABLE.c.purpose == purpose).values(retired=time.time()))
    _made(connection, purpose)


def _made(connection: Connection, purpose: str) -> dict[str, bytes]:
    secret_id, value = secrets.token_hex(8), secrets.token_bytes(32)
    row = {"id": secret_id, "purpose": purpose, "value": value.hex(), "created": time.time()}
    connection.execute(insert(_TABLE).values(row))
    return {secret_id: value}
