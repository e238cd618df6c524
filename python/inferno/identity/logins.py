"""Logging in, staying logged in, logging out. Each is audited in the transaction that does it."""

from __future__ import annotations

from sqlalchemy import Connection

from inferno import errors
from inferno.config import AuthSettings
from inferno.identity import audit, tokens
from inferno.identity.passwords import rehashed, verify_password
from inferno.identity.users import User, find_user, get_user, note_login
from inferno.store.database import Database


class Logins:
    def __init__(self, database: Database, settings: AuthSettings) -> None:
        self._database = database
        self._settings = settings

    async def login(self, username: str, password: str, address: str) -> tuple[User, tokens.Tokens]:
        """Raises AuthenticationFailed, after the same work and in the same words whatever was wrong."""
        user = await self._database.read(lambda connection: find_user(connection, username))
        if not await verify_password(password, user.password_hash if user else None) or user is None or user.disabled:
            await self._audit(username, "login", address, "refused")
            raise _refused()
        new_hash = await rehashed(password, user.password_hash)

        def grant(connection: Connection) -> tuple[User, tokens.Tokens]:
            known = find_user(connection, user.id)
            if known is None or known.version != user.version:  # the password was changed while it was verified
                raise _refused()
            note_login(connection, user.id, new_hash)
            audit.record(connection, user.username, "login", address=address)
            known = get_user(connection, user.id)
            return known, self._open(connection, known)

        return await self._database.write(grant)

    def _open(self, connection: Connection, user: User) -> tokens.Tokens:
        settings = self._settings
        return tokens.open_session(connection, user, ttl_s=settings.token_ttl_s, refresh_ttl_s=settings.refresh_ttl_s)

    async def refresh(self, refresh_token: str, address: str) -> tuple[User, tokens.Tokens]:
        """Raises AuthenticationFailed."""

        def renew(connection: Connection) -> tuple[User, tokens.Tokens] | tokens.Reused:
            outcome = tokens.refresh_session(connection, refresh_token, ttl_s=self._settings.token_ttl_s)
            if isinstance(outcome, tokens.Reused):
                audit.record(connection, outcome.user_id, "login.refresh", address=address, result="reused")
            return outcome

        outcome = await self._database.write(renew)
        if isinstance(outcome, tokens.Reused):
            raise outcome
        return outcome

    async def logout(self, claims: tokens.Claims, address: str) -> None:
        """Of a token whose claims are verified."""

        def end(connection: Connection) -> None:
            tokens.revoke_token(connection, claims)
            audit.record(connection, claims.sub, "logout", address=address)

        await self._database.write(end)

    async def _audit(self, actor: str, action: str, address: str, result: str) -> None:
        await self._database.write(
            lambda connection: audit.record(connection, actor, action, address=address, result=result)
        )


def _refused() -> errors.AuthenticationFailed:
    return errors.AuthenticationFailed("The username or the password is wrong.")
