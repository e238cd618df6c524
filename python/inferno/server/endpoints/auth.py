"""POST /auth/login, /auth/logout, /auth/refresh."""

from __future__ import annotations

import time
from typing import Any

from inferno import errors
from inferno.identity import tokens
from inferno.identity.authentication import presented_credential
from inferno.identity.limits import Exceeded
from inferno.identity.passwords import MAX_BYTES
from inferno.identity.users import User
from inferno.server.address import subscriber
from inferno.server.call import Answer, Call
from inferno.server.errors import iso

_MAX_NAME = 256


async def login(call: Call) -> Answer:
    """Attempts are limited for each address, before anything of them is read, and for each user; whoever is logged in
    already is not affected by either."""
    await _count_attempt(call)
    body = await call.body()
    username, password = body.text("username"), body.text("password")
    if not 1 <= len(username) <= _MAX_NAME:
        body.refuse("username", f"1 to {_MAX_NAME} characters")
    if not 1 <= len(password.encode("utf-8", "surrogatepass")) <= MAX_BYTES:
        body.refuse("password", f"1 to {MAX_BYTES} bytes")
    await _count_attempt_at(call, username)
    user, granted = await call.services.logins.login(username, password, call.address)
    return Answer(_answer(user, granted))


async def _count_attempt(call: Call) -> None:
    await call.services.limiter.count_login(f"login:{subscriber(call.address)}")


async def _count_attempt_at(call: Call, username: str) -> None:
    """When a user's attempts are spent, each address still has one a minute: guesses from everywhere are slowed down,
    and strangers cannot keep the user out."""
    limiter = call.services.limiter
    try:
        await limiter.count_login(f"login:user:{username}")
    except Exceeded:
        await limiter.count_login(f"login:user-from:{subscriber(call.address)} {username}", limit=1)


async def refresh(call: Call) -> Answer:
    """A refresh token is good for one use; using it twice ends the session."""
    await _count_attempt(call)
    token = (await call.body()).text("refresh_token")
    user, granted = await call.services.logins.refresh(token, call.address)
    return Answer(_answer(user, granted))


async def logout(call: Call) -> Answer:
    """Revokes the token it is called with, and the session it belongs to."""
    credential = presented_credential(call.headers)
    if credential is None or not tokens.looks_like_token(credential):
        raise errors.InvalidRequest("Only a token can be logged out; API keys are revoked.", field="Authorization")
    claims = await call.services.authenticator.claims(credential)
    await call.services.logins.logout(claims, call.address)
    call.services.authenticator.forget(credential)
    return Answer({"status": "logged_out"})


def _answer(user: User, granted: tokens.Tokens) -> dict[str, Any]:
    return {
        "token": granted.access,
        "access_token": granted.access,
        "token_type": "Bearer",
        "expires_in": max(0, round(granted.expires_at - time.time())),
        "expires_at": iso(granted.expires_at),
        "refresh_token": granted.refresh,
        "user": {
            "id": user.id,
            "username": user.username,
            "email": user.email,
            "role": user.role,
            "last_login": None if user.last_login is None else iso(user.last_login),
        },
    }
