"""What holds for every request and answer: id, API version, host check, errors in the envelope, a line in the log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.frames import CloseCode

from inferno import errors
from inferno.identity.limits import Admission, Exceeded
from inferno.request import new_id
from inferno.server import cors, rate_limit
from inferno.server.call import REQUEST_ID, Answer, ClientLeft, SlowReader
from inferno.server.errors import STATUS, UNEXPECTED, envelope, headers
from inferno.server.route import RouteSpec, SocketSpec
from inferno.server.services import Services

log = logging.getLogger("inferno.access")

API_VERSION = "1.0"
_ACCEPTED_VERSIONS = ("1", "1.0", "v1")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: The status in the log for a client that left before its answer was complete.
_CLIENT_LEFT = 499
_SWITCHING_PROTOCOLS = 101
#: ASGI extension of our own protocol class: drops a connection without waiting for its reader.
ABORT = "inferno.abort"


def common_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    """What every answer has, whatever comes of the request."""
    return [
        (b"x-request-id", request_id.encode()),
        (b"api-version", API_VERSION.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]


class Exchanges:
    """ASGI middleware, the only one: `app` may raise any exception."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await Exchange(scope, send, self._services).run(self._app, receive)
        else:
            await self._app(scope, receive, send)


class Exchange:
    """One request and its answer on the way out. A WebSocket is one too: its answer is the handshake's, or a refusal
    by the `websocket.http.response` extension of ASGI."""

    def __init__(self, scope: Scope, send: Send, services: Services) -> None:
        self._scope = scope
        self._is_websocket = scope["type"] == "websocket"
        self._send = send
        self._settings = services.settings.server
        # A key keeps strange pages out: they cannot send one. Where nobody needs a key, and for WebSockets, which may
        # bring it later, who asks is all there is to go by.
        self._origin_matters = self._is_websocket or not services.settings.auth.enabled
        self._headers = Headers(scope=scope)
        self._began = time.perf_counter()
        given = self._headers.get("x-request-id", "")
        self._request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req")
        scope[REQUEST_ID] = self._request_id
        self._status = 0

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        try:
            await self._answer(app, receive)
        except (ClientDisconnect, SlowReader):
            # Gone, or not reading: either way nobody will see more of the answer.
            self._status = _CLIENT_LEFT
            if abort := self._scope.get("extensions", {}).get(ABORT):
                abort()
        finally:
            self._log()

    async def _answer(self, app: ASGIApp, receive: Receive) -> None:
        try:
            self._check()
            await app(self._scope, receive, self.send)
        except (ClientDisconnect, SlowReader):
            raise
        except errors.InfernoError as error:
            await self._fail(error)
        except Exception:
            log.exception("unexpected error", extra={"fields": {"request_id": self._request_id}})
            await self._fail(errors.InternalError(UNEXPECTED))

    def _check(self) -> None:
        version = self._headers.get("api-version")
        if version is not None and version.strip() not in _ACCEPTED_VERSIONS:
            raise errors.InvalidRequest("The API version is not supported; this is 1.0.", field="API-Version")
        if not self._names_us(self._headers.get("host", "localhost")):
            raise errors.InvalidRequest("The Host header does not name this server.", field="Host")
        if self._origin_matters and not cors.admits(self._headers, self._settings.cors_origins):
            raise errors.AuthorizationFailed("This origin may not call this server.", field="Origin")

    def _names_us(self, host: str) -> bool:
        """Against DNS rebinding: a web page under another name cannot talk to a server on the reader's machine."""
        settings = self._settings
        if settings.host in ("0.0.0.0", "::") and not settings.allowed_hosts:  # noqa: S104
            return True
        name = re.sub(r":\d+$", "", host).lower()
        ours = (settings.host, f"[{settings.host}]", *settings.allowed_hosts)
        return name in _LOOPBACK_NAMES or name in map(str.lower, ours)

    async def send(self, message: Message) -> None:
        """Raises ClientLeft, and SlowReader when the client has not read for `stream_write_timeout_s`."""
        if message["type"] in ("http.response.start", "websocket.accept"):
            self._status = message.get("status", _SWITCHING_PROTOCOLS)
            message = {**message, "headers": [*message.get("headers", ()), *self._own_headers()]}
        if self._is_websocket and message["type"].startswith("http."):
            message = {**message, "type": "websocket." + message["type"]}
        try:
            async with asyncio.timeout(self._settings.stream_write_timeout_s):
                await self._send(message)
        except TimeoutError:
            raise SlowReader from None
        except OSError:
            raise ClientLeft from None

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        spec: RouteSpec | SocketSpec | None = getattr(self._scope.get("route"), "spec", None)
        return [
            *common_headers(self._request_id),
            *cors.headers(self._headers, self._method, self._settings.cors_origins),
            *(spec.deprecation.headers() if spec and spec.deprecation else ()),
            *self._limit_headers(),
            *self._openai_headers(),
        ]

    def _openai_headers(self) -> list[tuple[bytes, bytes]]:
        """The time to the answer's beginning, under the name that OpenAI gives it."""
        return [(b"openai-processing-ms", str(round(self._ms)).encode())] if self._is_openai else []

    def _limit_headers(self) -> list[tuple[bytes, bytes]]:
        admission: Admission | None = self._scope.get(rate_limit.ADMISSION)
        if admission is None:
            return []
        told = rate_limit.headers(admission.window)
        if self._is_openai:
            told |= rate_limit.openai_headers(admission)
        return [(name.lower().encode(), value.encode()) for name, value in told.items()]

    @property
    def _method(self) -> str:
        method: str = self._scope.get("method", "GET")  # a handshake is a GET
        return method

    @property
    def _is_openai(self) -> bool:
        path: str = self._scope["path"]
        return path.startswith("/v1/")

    @property
    def _ms(self) -> float:
        return (time.perf_counter() - self._began) * 1000

    async def _fail(self, error: errors.InfernoError) -> None:
        if self._status:  # bytes have left; a second answer is not possible
            if self._is_websocket:
                await self.send({"type": "websocket.close", "code": int(CloseCode.INTERNAL_ERROR)})
            return
        body = envelope(error, self._request_id, openai=self._is_openai)
        told = headers(error)
        if isinstance(error, Exceeded):
            # of the limit that was hit, not of the requests per minute
            self._scope.pop(rate_limit.ADMISSION, None)
            told |= rate_limit.headers(error.window)
        answer = Answer(body, STATUS[error.code], headers=told)
        await answer.write(self.send, head=self._method == "HEAD")

    def _log(self) -> None:
        fields: dict[str, Any] = {
            "request_id": self._request_id,
            "method": self._method,
            "route": getattr(self._scope.get("route"), "path", "none"),
            "status": self._status,
            "ms": round(self._ms, 1),
        }
        log.info("request", extra={"fields": fields})
