"""What there is to say about one route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal, TypeAlias

import msgspec

from inferno.identity.callers import Caller, Permission
from inferno.server.call import Call, Handler

#: What a route asks of its caller: a permission, `authenticated` for anybody who is somebody, or nothing.
Access: TypeAlias = Permission | Literal["authenticated", "public"]
#: Six months, however they fall.
_NOTICE = timedelta(days=184)


class Deprecation(msgspec.Struct, frozen=True):
    """Since when a route is deprecated, when it goes at the earliest, and where the migration guide is. Raises
    ValueError for less than six months of notice. docs/versioning.md has the policy."""

    since: datetime
    sunset: datetime
    guide: str

    def __post_init__(self) -> None:
        if self.sunset - self.since < _NOTICE:
            raise ValueError(f"{self.sunset} is less than six months after {self.since}")

    def headers(self) -> list[tuple[bytes, bytes]]:
        """RFC 9745 `Deprecation`, RFC 8594 `Sunset`, and a link to the guide."""
        return [
            (b"deprecation", f"@{int(self.since.timestamp())}".encode()),
            (b"sunset", format_datetime(self.sunset.astimezone(UTC), usegmt=True).encode()),
            (b"link", f'<{self.guide}>; rel="deprecation"; type="text/html"'.encode()),
        ]


class RouteSpec(msgspec.Struct, frozen=True):
    """A route cannot be written down without the permission it asks for."""

    method: str
    path: str
    permission: Access
    handler: Handler
    summary: str
    deprecation: Deprecation | None = None
    #: Counts against the caller's rate limits.
    limited: bool = True


#: The caller that a credential stands for, or an error. A WebSocket may present it after the handshake.
Admit: TypeAlias = Callable[[str | None], Awaitable[Caller]]
SocketHandler: TypeAlias = Callable[[Call, Admit], Awaitable[None]]


class SocketSpec(msgspec.Struct, frozen=True):
    """A WebSocket route. The handler is called before the handshake is accepted; it serves nothing to a caller that
    `Admit` has not let in."""

    path: str
    permission: Permission
    handler: SocketHandler
    deprecation: Deprecation | None = None
