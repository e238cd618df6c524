"""What there is to say about one route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal, TypeAlias

import msgspec

from inferno.identity.keys import Caller
from inferno.server.call import Call, Handler

Permission: TypeAlias = Literal["public", "inference", "models:read", "models:write", "metrics:read"]


class Deprecation(msgspec.Struct, frozen=True):
    """Since when a route is deprecated, when it goes (six months later or more), and what to read."""

    since: datetime
    sunset: datetime
    guide: str

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
    permission: Permission
    handler: Handler
    summary: str
    deprecation: Deprecation | None = None


#: The caller that headers name, or an error. A WebSocket may present its credentials after the handshake.
Admit: TypeAlias = Callable[[Mapping[str, str]], Caller]
SocketHandler: TypeAlias = Callable[[Call, Admit], Awaitable[None]]


class SocketSpec(msgspec.Struct, frozen=True):
    """A WebSocket route. The handler is called before the handshake is accepted; it serves nothing to a caller that
    `Admit` has not let in."""

    path: str
    permission: Permission
    handler: SocketHandler
    deprecation: Deprecation | None = None
