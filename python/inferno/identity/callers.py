"""Roles, what they may do, and the caller that a credential stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import msgspec

from inferno import errors

Permission: TypeAlias = Literal[
    "inference",
    "models:read",
    "models:write",
    "batch",
    "webhooks",
    "traces:read",
    "metrics:read",
    "metrics:write",
]
PERMISSIONS: frozenset[str] = frozenset(get_args(Permission))

_USER = frozenset({"inference", "models:read", "batch", "webhooks", "traces:read"})
#: What each role may do. Everything concerning users, keys and the audit log is left to the command line, which needs
#: the data directory.
ROLES: Mapping[str, frozenset[str]] = {
    "admin": PERMISSIONS,
    "service": _USER | {"metrics:read", "metrics:write"},
    "user": _USER,
    "guest": frozenset({"inference", "models:read"}),
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a key changes of the configured limits; None leaves it, 0 lifts it."""

    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls. `salt`, 64 bits, separates what callers may share of each other's cached prompts."""

    user_id: str
    username: str
    role: str
    permissions: frozenset[str]
    #: What the rate limits count by: a key, a user (for tokens) or an address.
    subject: str
    salt: int = 0
    models: frozenset[str] | None = None
    limits: Limits = Limits()

    def require(self, permission: str) -> None:
        """Raises AuthorizationFailed."""
        if permission not in self.permissions:
            raise errors.AuthorizationFailed(f"The caller lacks the permission {permission}.", permission=permission)

    def require_model(self, model: str) -> None:
        """Raises AuthorizationFailed for a model that the key's list does not name."""
        if self.models is not None and model not in self.models:
            raise errors.AuthorizationFailed("The key does not cover this model.", model=model)

    def owns(self, user_id: str) -> bool:
        return self.user_id == user_id


def anonymous(address: str) -> Caller:
    """Everybody, on a server without authentication."""
    subject = f"address:{address}"
    return Caller(user_id="anonymous", username="anonymous", role="admin", permissions=PERMISSIONS, subject=subject)
