"""API keys in their simplest form: one key, fixed by the operator or generated at first start."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from inferno import errors

#: What a route may ask for.
PERMISSIONS = frozenset({"inference", "models:read", "models:write", "metrics:read", "metrics:write", "traces:read"})
_KEY_FILE = "api-key"


class Caller(msgspec.Struct, frozen=True):
    """`salt`, 64 bits, separates what callers may share of each other's cached prompts."""

    id: str
    permissions: frozenset[str]
    salt: int


class KeyRing:
    """Knows the key by its SHA-256 only."""

    def __init__(self, key: str | None) -> None:
        """`key` None admits everybody; the settings allow that on loopback only."""
        self._digest = None if key is None else _digest(key)
        self._salt_key = secrets.token_bytes(32)

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """The caller that the headers (with names in lower case) name. Raises AuthenticationFailed."""
        if self._digest is None:
            return self._caller("anonymous")
        key = presented_key(headers)
        if key is None:
            raise errors.AuthenticationFailed("A key is needed: Authorization: Bearer KEY.")
        if not hmac.compare_digest(_digest(key), self._digest):
            raise errors.AuthenticationFailed("The key is not valid.")
        return self._caller("key")

    def _caller(self, name: str) -> Caller:
        salt = hmac.digest(self._salt_key, name.encode(), "sha256")
        return Caller(name, PERMISSIONS, int.from_bytes(salt[:8], "big"))


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "").strip() or None


def stored_key(data_dir: Path) -> tuple[str, bool]:
    """The key kept in `data_dir` for this machine's own use (mode 0600), and whether it was made just now.

    Of several processes that start at once all get the same key. Raises ServiceUnavailable when it cannot be kept.
    """
    path = data_dir / _KEY_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        is_new = not path.exists() and _keep(path, f"inf_{secrets.token_hex(4)}_{secrets.token_urlsafe(24)}")
        key = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise errors.ServiceUnavailable(f"The API key cannot be kept in {data_dir}: {error}.") from None
    if not key:
        raise errors.ServiceUnavailable(f"{path} is empty; delete it to have a new key made.")
    return key, is_new


def _keep(path: Path, key: str) -> bool:
    """Put `key` at `path` unless something is there already; readers never see half of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            return True
    finally:
        os.unlink(temporary)
    return False


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
