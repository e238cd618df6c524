"""What there is to say about one route."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal, TypeAlias

import msgspec

from inferno.identity.callers import Permission
from inferno.server.call import Handler

#: What a route asks of its caller: a permission, `authenticated` for anybody who is somebody, or nothing.
Access: TypeAlias = Permission | Literal["authenticated", "public"]


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
    permission: Access
    handler: Handler
    summary: str
    deprecation: Deprecation | None = None
    #: Counts against the caller's rate limits.
    limited: bool = True
