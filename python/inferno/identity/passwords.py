"""Passwords: argon2id (RFC 9106), with the parameters that OWASP's password storage cheat sheet gives."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import ARGON2_VERSION

from inferno import errors

MAX_BYTES = 1024
#: Shorter ones are taken, with a warning: the operator decides.
ADVISED_LENGTH = 8

_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
#: At most two at a time, off the event loop: each takes 19 MiB and some 30 ms of a core.
_WORKERS = ThreadPoolExecutor(2, "password")
#: Compared with when there is no such user, so that both take the same time. No password has this hash.
_NOBODY = (
    f"$argon2id$v={ARGON2_VERSION}$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}"
    f"${'A' * 22}${'A' * 43}"
)


def hash_password(password: str) -> str:
    """Raises InvalidRequest for an empty or too long one. Takes some 30 ms."""
    check_password(password)
    return _HASHER.hash(password)


def check_password(password: str) -> None:
    """Raises InvalidRequest for what cannot be a password."""
    if not 1 <= len(password.encode("utf-8", "surrogatepass")) <= MAX_BYTES:
        raise errors.InvalidRequest(f"password must have 1 to {MAX_BYTES} bytes.", field="password")


async def verify_password(password: str, known: str | None) -> bool:
    """Whether `password` is the one behind the hash `known`; None takes as long, and is False."""
    matches = await asyncio.wrap_future(_WORKERS.submit(_matches, password, known or _NOBODY))
    return matches and known is not None


async def rehashed(password: str, known: str | None) -> str | None:
    """The hash as it is made today, when `known`, of the same password, was made with other parameters."""
    if known is None or not _HASHER.check_needs_rehash(known):
        return None
    return await asyncio.wrap_future(_WORKERS.submit(hash_password, password))


def _matches(password: str, known: str) -> bool:
    try:
        return _HASHER.verify(known, password)
    except (Argon2Error, InvalidHashError):
        return False
