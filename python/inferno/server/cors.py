"""Cross-origin calls from browsers: nothing unless the operator lists the origin (or `*`).

https://fetch.spec.whatwg.org/#http-cors-protocol. Credentials are header fields that a page sets itself; cookies
play no part, so `Access-Control-Allow-Credentials` is never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_EXPOSED = b"X-Request-ID, API-Version, Retry-After"
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, X-API-Key, X-Request-ID, API-Version"),
    (b"access-control-max-age", b"600"),
]


def headers(request: Headers, method: str, origins: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """What an answer carries so that the asking page may read it."""
    origin = request.get("origin")
    if origin is None or not ("*" in origins or origin in origins):
        return []
    allowed = [(b"access-control-allow-origin", b"*" if "*" in origins else origin.encode("latin-1"))]
    if method == "OPTIONS" and "access-control-request-method" in request:
        return [*allowed, *_PREFLIGHT, (b"vary", b"Origin")]
    return [*allowed, (b"access-control-expose-headers", _EXPOSED), (b"vary", b"Origin")]


def admits(request: Headers, origins: Sequence[str]) -> bool:
    """Whether the page behind a WebSocket handshake may talk to us. Browsers ask nobody before they open one, so the
    server must look (RFC 6455, section 10.2): at pages of this very host and port, and of listed origins. Programs
    that are no browser send no origin."""
    origin = request.get("origin")
    if origin is None or "*" in origins or origin in origins:
        return True
    try:
        return urlsplit(origin).netloc.lower() == request.get("host", "").lower() != ""
    except ValueError:
        return False
