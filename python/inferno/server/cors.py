"""Cross-origin calls from browsers: nothing unless the operator lists the origin (or `*`).

https://fetch.spec.whatwg.org/#http-cors-protocol. Credentials are header fields that a page sets itself; cookies
play no part, so `Access-Control-Allow-Credentials` is never sent. A listed origin may send any header field, for SDKs
have some of their own, and read any, which without such credentials `*` stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_METHODS = b"GET, POST, DELETE"


def headers(request: Headers, method: str, origins: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """What an answer carries so that the asking page may read it."""
    origin = request.get("origin")
    if origin is None or not ("*" in origins or origin in origins):
        return []
    allowed = [(b"access-control-allow-origin", b"*" if "*" in origins else origin.encode("latin-1"))]
    if method == "OPTIONS" and "access-control-request-method" in request:
        return [*allowed, *_preflight(request), (b"vary", b"Origin, Access-Control-Request-Headers")]
    return [*allowed, (b"access-control-expose-headers", b"*"), (b"vary", b"Origin")]


def _preflight(request: Headers) -> list[tuple[bytes, bytes]]:
    asked_for = request.get("access-control-request-headers", "")
    return [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", asked_for.encode("latin-1")),  # `*` would leave out Authorization
        (b"access-control-max-age", b"600"),
    ]


def admits(request: Headers, origins: Sequence[str]) -> bool:
    """Whether the page behind a request may talk to us: one of this very host and port, or of a listed origin. Browsers
    ask nobody before they open a WebSocket (RFC 6455, section 10.2) or send a simple POST, so the server must look.
    Programs that are no browser send no origin."""
    origin = request.get("origin")
    if origin is None or "*" in origins or origin in origins:
        return True
    try:
        return urlsplit(origin).netloc.lower() == request.get("host", "").lower() != ""
    except ValueError:
        return False
