"""API keys: `inf_<id>_<secret>`. The secret has 192 random bits, so a plain SHA-256 of the key is all that is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from inferno import errors
from inferno.identity.callers import ROLES, Limits
from inferno.identity.users import User
from inferno.store.schema import api_keys

MAX_DAYS = 3650
_MAX_NAME = 128
_MAX_MODELS = 100


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """All about a key but the key. Times are UTC seconds since 1970."""

    id: str
    user_id: str
    name: str
    digest: str
    scopes: list[str] | None
    models: list[str] | None
    limits: Limits | None
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None

    def is_live(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


def digest(credential: str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()


def id_of(credential: str) -> str | None:
    """The id in something that looks like a key of ours."""
    parts = credential.split("_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == "inf" and 1 <= len(parts[1]) <= 16 else None


def create_key(
    connection: Connection,
    user: User,
    name: str,
    *,
    scopes: Iterable[str] | None = None,
    models: Iterable[str] | None = None,
    limits: Limits | None = None,
    expires_in_days: float | None = None,
    key: str | None = None,
) -> tuple[str, ApiKey]:
    """A new key of `user`, and what is kept of it; the key itself is never to be had again. `scopes` can only narrow
    what the user's role may do. Raises InvalidRequest."""
    _check(user, name, scopes, models, expires_in_days)
    key = key or f"inf_{secrets.token_hex(6)}_{secrets.token_urlsafe(24)}"
    now = time.time()
    row = ApiKey(
        id=id_of(key) or secrets.token_hex(6),
        user_id=user.id,
        name=name,
        digest=digest(key),
        scopes=sorted(scopes) if scopes is not None else None,
        models=sorted(models) if models is not None else None,
        limits=limits,
        created=now,
        expires=None if expires_in_days is None else now + expires_in_days * 86400,
        revoked=None,
        last_used=None,
    )
    connection.execute(insert(api_keys).values(msgspec.to_builtins(row)))
    return key, row


def _check(
    user: User, name: str, scopes: Iterable[str] | None, models: Iterable[str] | None, days: float | None
) -> None:
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise errors.InvalidRequest(f"name must have 1 to {_MAX_NAME} printable characters.", field="name")
    allowed = ROLES[user.role]
    if beyond := sorted(set(scopes or ()) - allowed):
        raise errors.InvalidRequest(
            f"The role {user.role} has no permission {', '.join(beyond)}; it has {', '.join(sorted(allowed))}.",
            field="permissions",
        )
    if models is not None and not 1 <= len(list(models)) <= _MAX_MODELS:
        raise errors.InvalidRequest(f"models must name 1 to {_MAX_MODELS} models.", field="models")
    if days is not None and not 0 < days <= MAX_DAYS:
        raise errors.InvalidRequest(f"expires_in must be more than 0 and at most {MAX_DAYS} days.", field="expires_in")


def find_key(connection: Connection, credential: str) -> ApiKey | None:
    """The key that `credential` is, live or not."""
    key_id = id_of(credential)
    row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).first() if key_id else None
    if row is None or not hmac.compare_digest(digest(credential), row.digest):
        return None
    return _key(row)


def get_key(connection: Connection, key_id: str) -> ApiKey:
    """Raises NotFound."""
    row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).first()
    if row is None:
        raise errors.NotFound(f"There is no API key {key_id!r}.")
    return _key(row)


def list_keys(connection: Connection, user_id: str | None = None) -> list[ApiKey]:
    query = select(api_keys).order_by(api_keys.c.created)
    if user_id is not None:
        query = query.where(api_keys.c.user_id == user_id)
    return [_key(row) for row in connection.execute(query)]


def revoke_key(connection: Connection, key_id: str) -> ApiKey:
    """Takes effect in a running server within `authentication.CACHE_S`. Raises NotFound. Idempotent."""
    key = get_key(connection, key_id)
    if key.revoked is None:
        connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(revoked=time.time()))
    return get_key(connection, key_id)


def rotate_key(connection: Connection, user: User, key_id: str, *, grace_s: float) -> tuple[str, ApiKey]:
    """A new key with the same rights; the old one goes on for `grace_s` seconds, so that both are live while clients
    change over. Raises NotFound, InvalidRequest for a key that is no longer live."""
    if not 0 <= grace_s <= MAX_DAYS * 86400:
        raise errors.InvalidRequest(f"grace must be at least 0 and at most {MAX_DAYS * 24} hours.", field="grace")
    old, now = get_key(connection, key_id), time.time()
    if not old.is_live(now):
        raise errors.InvalidRequest(f"The API key {key_id!r} has expired or was revoked.", field="key")
    days = None if old.expires is None else (old.expires - old.created) / 86400
    new = create_key(
        connection, user, old.name, scopes=old.scopes, models=old.models, limits=old.limits, expires_in_days=days
    )
    ends = now + grace_s if old.expires is None else min(now + grace_s, old.expires)
    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(expires=ends))
    return new


def note_use(connection: Connection, last_used: dict[str, float]) -> None:
    """Key id -> when it was last used."""
    for key_id, when in last_used.items():
        connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used=when))


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return msgspec.convert(row, ApiKey, from_attributes=True)
