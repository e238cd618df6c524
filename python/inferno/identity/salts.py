"""What keeps the cached prompts of users apart."""

from __future__ import annotations

import hmac

from sqlalchemy import Connection

from inferno.identity import kept_secrets

_PURPOSE = "cache_salt"


def salt_key(connection: Connection) -> bytes:
    """Of this database: prompts that outlive the server are found again. Makes it when there is none (needs a
    transaction that may write then)."""
    return next(iter(kept_secrets.valid(connection, _PURPOSE).values()))


def salt(key: bytes, user_id: str) -> int:
    """64 bits that nobody without the key can compute."""
    return int.from_bytes(hmac.digest(key, user_id.encode(), "sha256")[:8], "big")
