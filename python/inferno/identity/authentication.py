"""From a credential to a caller."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping

from sqlalchemy import Connection

from inferno import errors
from inferno.identity import api_keys, salts, tokens
from inferno.identity.callers import PERMISSIONS, ROLES, Caller, Limits, anonymous
from inferno.identity.users import User, find_user
from inferno.store.database import Database

#: Seconds for which an answer of the database is believed: a revoked key or token works no longer than that.
CACHE_S = 3.0
_CACHED = 4096
_MAX_CREDENTIAL = 4096
#: Whoever presents the key that the operator fixed in the settings.
_OPERATOR = "operator"


def presented_credential(headers: Mapping[str, str]) -> str | None:
    """What stands in `Authorization: Bearer ...` or `X-API-Key: ...` (names in lower case)."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "").strip() or None


class Authenticator:
    """Knows callers by API key or token. `enabled` False admits everybody, which the settings allow on loopback only.

    Answers are cached by the SHA-256 of the whole credential, refusals as well, in bounded space.
    """

    def __init__(self, database: Database, *, enabled: bool = True, fixed_key: str = "") -> None:
        self._database = database
        self._enabled = enabled
        self._fixed = api_keys.digest(fixed_key) if fixed_key else None
        self._salt_key = database.write_now(salts.salt_key)
        self._signing = database.write_now(tokens.signing_secrets)
        self._cache: OrderedDict[str, tuple[float, Caller | None]] = OrderedDict()
        self._used: dict[str, float] = {}

    async def authenticate(self, credential: str | None, address: str) -> Caller:
        """The caller. Raises AuthenticationFailed, ServiceUnavailable."""
        if not self._enabled:
            return anonymous(address)
        if credential is None:
            raise errors.AuthenticationFailed("A key or token is needed: Authorization: Bearer KEY.")
        digest = api_keys.digest(credential)
        if self._fixed is not None and hmac.compare_digest(digest, self._fixed):
            return self._operator()
        known, caller = self._cached(digest)
        if not known:
            caller = await self._look_up(credential)
            self._remember(digest, caller)
        if caller is None:
            raise errors.AuthenticationFailed("The key or token is not valid, has expired or was revoked.")
        self._note_use(caller)
        return caller

    def forget(self, credential: str) -> None:
        """Ask the database the next time."""
        self._cache.pop(api_keys.digest(credential), None)

    async def flush(self) -> None:
        """Write down when keys were last used."""
        used, self._used = self._used, {}
        if used:
            await self._database.write(lambda connection: api_keys.note_use(connection, used))

    def salt_of(self, user_id: str) -> int:
        """Cached prompts are shared within a user. Nobody outside can compute the salt."""
        return salts.salt(self._salt_key, user_id)

    # ---- looking up ----

    async def _look_up(self, credential: str) -> Caller | None:
        if len(credential) > _MAX_CREDENTIAL:
            return None
        try:
            if tokens.looks_like_token(credential):
                return await self._token_caller(credential)
            return await self._database.read(lambda connection: self._key_caller(connection, credential))
        except errors.AuthenticationFailed:
            return None

    async def _token_caller(self, token: str) -> Caller:
        claims = await self.claims(token)
        user = await self._database.read(lambda connection: tokens.user_of(connection, claims))
        return self._caller(user, f"user:{user.id}")

    async def claims(self, token: str) -> tokens.Claims:
        """What a token of ours says, whether or not it was revoked. Raises AuthenticationFailed."""
        try:
            return tokens.verify(token, self._signing)
        except errors.AuthenticationFailed:
            # The secret may have been changed from the command line.
            self._signing = await self._database.read(tokens.signing_secrets)
            return tokens.verify(token, self._signing)

    def _key_caller(self, connection: Connection, credential: str) -> Caller | None:
        key = api_keys.find_key(connection, credential)
        if key is None or not key.is_live(time.time()):
            return None
        user = find_user(connection, key.user_id)
        return None if user is None or user.disabled else self._caller(user, f"key:{key.id}", key)

    def _caller(self, user: User, subject: str, key: api_keys.ApiKey | None = None) -> Caller:
        permissions = ROLES[user.role]
        if key is not None and key.scopes is not None:
            permissions &= frozenset(key.scopes)  # a key can only narrow, also when the role has lost something since
        return Caller(
            user_id=user.id,
            username=user.username,
            role=user.role,
            permissions=permissions,
            subject=subject,
            salt=self.salt_of(user.id),
            models=frozenset(key.models) if key is not None and key.models is not None else None,
            limits=(key.limits if key else None) or Limits(),
        )

    def _operator(self) -> Caller:
        return Caller(
            user_id=_OPERATOR,
            username=_OPERATOR,
            role="admin",
            permissions=PERMISSIONS,
            subject="key:operator",
            salt=self.salt_of(_OPERATOR),
        )

    # ---- the cache ----

    def _cached(self, digest: str) -> tuple[bool, Caller | None]:
        until, caller = self._cache.get(digest, (0.0, None))
        return time.monotonic() < until, caller

    def _remember(self, digest: str, caller: Caller | None) -> None:
        self._cache[digest] = (time.monotonic() + CACHE_S, caller)
        self._cache.move_to_end(digest)
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)

    def _note_use(self, caller: Caller) -> None:
        kind, _, key_id = caller.subject.partition(":")
        if kind == "key":
            self._used[key_id] = time.time()
