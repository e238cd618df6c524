"""Cross-origin calls from browsers: nothing unless the operator lists the origin (or `*`).

https://fetch.spec.whatwg.org/#http-cors-protocol. Credentials are header fields that a page sets itself; cookies
play no part, so `Access-Control-Allow-Credentials` is never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_METHODS = b"GET, POST, DELETE"
_ASKED_FOR = (
    b"Authorization, X-API-Key, Content-Type, API-Version, X-Request-ID, Idempotency-Key, traceparent, tracestate"
)
_EXPOSED = (
    b"X-Request-ID, API-Version, Retry-After, Deprecation, Sunset, Link, "
    b"X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-RateLimit-Reset-After"
)
_PREFLIGHT = [
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", _ASKED_FOR),
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
