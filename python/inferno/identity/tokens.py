"""JSON Web Tokens (RFC 7519, RFC 8725) and the refresh tokens beside them.

One algorithm, HS256, with a secret of 256 random bits that the database keeps. The header's `kid` is looked up among
our own secrets and nowhere else; headers that would bring keys along are refused. A refresh token is valid once: when
one is used again, somebody has copied it, and the whole session ends.

PyJWT is imported when the first token is made or read: it loads `cryptography` where that is installed, 8 MiB that
HS256 has no use for.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from inferno import errors
from inferno.identity import kept_secrets
from inferno.identity.api_keys import digest
from inferno.identity.users import User, find_user
from inferno.request import new_id
from inferno.store import schema

ALGORITHM = "HS256"
ISSUER = AUDIENCE = "inferno"
_MAX_BYTES = 4096
_LEEWAY_S = 30
_REQUIRED = ("iss", "aud", "sub", "exp", "iat", "jti", "sid", "ver")
_HEADER = frozenset({"alg", "typ", "kid"})
_PURPOSE = "jwt"


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a valid token says. `sub` is the user's id, `ver` the user's version when it was made."""

    sub: str
    jti: str
    sid: str
    ver: int
    exp: int


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    access: str
    refresh: str
    expires_at: int


def looks_like_token(credential: str) -> bool:
    """Three parts with dots between; API keys of ours have none."""
    return credential.count(".") == 2 and credential.startswith("ey")


# ---- signing secrets ----


def signing_secrets(connection: Connection) -> dict[str, bytes]:
    """Id -> secret, the one to sign with first. Makes the first one when there is none (needs a transaction that may
    write then)."""
    return kept_secrets.valid(connection, _PURPOSE)


def rotate_secret(connection: Connection) -> None:
    """Ends every token there is."""
    connection.execute(update(schema.sessions).values(revoked=time.time()))
    kept_secrets.replace(connection, _PURPOSE)


# ---- access tokens ----


def issue(user: User, session_id: str, keys: Mapping[str, bytes], ttl_s: float) -> tuple[str, int]:
    """A token for `user`, and when it expires."""
    import jwt

    now = int(time.time())
    expires_at = now + int(ttl_s)
    kid, secret = next(iter(keys.items()))
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": user.id,
        "iat": now,
        "exp": expires_at,
        "jti": secrets.token_hex(16),
        "sid": session_id,
        "ver": user.version,
    }
    return jwt.encode(claims, secret, ALGORITHM, headers={"kid": kid}), expires_at


def verify(token: str, keys: Mapping[str, bytes]) -> Claims:
    """The claims of a token of ours that has not expired. Raises AuthenticationFailed, always in the same words."""
    import jwt

    if len(token) > _MAX_BYTES:
        raise _invalid()
    try:
        header = jwt.get_unverified_header(token)
        if not header.keys() <= _HEADER or header.get("typ") != "JWT":
            raise _invalid()
        secret = keys[str(header.get("kid"))]
        claims: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            leeway=_LEEWAY_S,
            options={"require": list(_REQUIRED), "strict_aud": True},
        )
        return msgspec.convert({name: claims[name] for name in Claims.__struct_fields__}, Claims)
    except (jwt.PyJWTError, KeyError, ValueError, TypeError, OverflowError, msgspec.ValidationError):
        raise _invalid() from None


def _invalid() -> errors.AuthenticationFailed:
    return errors.AuthenticationFailed("The token is not valid or has expired.")


# ---- sessions ----


def open_session(connection: Connection, user: User, *, ttl_s: float, refresh_ttl_s: float) -> Tokens:
    """A login's tokens."""
    _forget_expired(connection)
    session_id, refresh = new_id("ses"), _new_refresh()
    now = time.time()
    row = {
        "id": session_id,
        "user_id": user.id,
        "digest": digest(refresh),
        "created": now,
        "expires": now + refresh_ttl_s,
    }
    connection.execute(insert(schema.sessions).values(row))
    access, expires_at = issue(user, session_id, signing_secrets(connection), ttl_s)
    return Tokens(access=access, refresh=f"{session_id}.{refresh}", expires_at=expires_at)


class Reused(errors.AuthenticationFailed):
    """A refresh token came a second time; `user_id` is whose session was ended for it."""

    def __init__(self, user_id: str) -> None:
        super().__init__("The refresh token is not valid.")
        self.user_id = user_id


def refresh_session(connection: Connection, refresh: str, *, ttl_s: float) -> tuple[User, Tokens] | Reused:
    """New tokens for a refresh token, which is used up. One that was used before ends its session, which is why
    `Reused` is returned, not raised: the transaction must stand. Raises AuthenticationFailed for any other."""
    session_id, _, value = refresh.partition(".")
    table = schema.sessions
    row = connection.execute(select(table).where(table.c.id == session_id)).first()
    if row is None or row.revoked is not None or time.time() >= row.expires:
        raise errors.AuthenticationFailed("The refresh token is not valid.")
    if not hmac.compare_digest(digest(value), row.digest):
        close_session(connection, session_id)
        return Reused(row.user_id)
    user = find_user(connection, row.user_id)
    if user is None or user.disabled:
        raise errors.AuthenticationFailed("The refresh token is not valid.")
    new = _new_refresh()
    connection.execute(update(table).where(table.c.id == session_id).values(digest=digest(new)))
    access, expires_at = issue(user, session_id, signing_secrets(connection), ttl_s)
    return user, Tokens(access=access, refresh=f"{session_id}.{new}", expires_at=expires_at)


def close_session(connection: Connection, session_id: str) -> None:
    table = schema.sessions
    connection.execute(update(table).where(table.c.id == session_id).values(revoked=time.time()))


def revoke_token(connection: Connection, claims: Claims) -> None:
    """Ends one access token and the session it came from."""
    table = schema.revoked_tokens
    if connection.execute(select(table.c.jti).where(table.c.jti == claims.jti)).first() is None:
        connection.execute(insert(table).values(jti=claims.jti, expires=claims.exp + _LEEWAY_S))
    close_session(connection, claims.sid)


def user_of(connection: Connection, claims: Claims) -> User:
    """The user behind valid claims, if token, session and user still stand. Raises AuthenticationFailed."""
    revoked = schema.revoked_tokens
    gone = connection.execute(select(revoked.c.jti).where(revoked.c.jti == claims.jti)).first()
    session = connection.execute(select(schema.sessions).where(schema.sessions.c.id == claims.sid)).first()
    user = find_user(connection, claims.sub)
    if gone or session is None or session.revoked is not None:
        raise _invalid()
    if user is None or user.disabled or user.version != claims.ver:
        raise _invalid()
    return user


def _new_refresh() -> str:
    return secrets.token_urlsafe(32)


def _forget_expired(connection: Connection) -> None:
    for table in (schema.revoked_tokens, schema.sessions):
        connection.execute(delete(table).where(table.c.expires < time.time() - 86400))
