"""The ASGI application: routes and the onion around them. Composition only."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferno import errors
from inferno.identity.keys import Caller
from inferno.request import new_id
from inferno.server import openapi
from inferno.server.call import Answer, Call
from inferno.server.errors import STATUS, envelope, headers
from inferno.server.routes import RouteSpec, route_table
from inferno.server.services import Services

log = logging.getLogger("inferno.access")

API_VERSION = "1.0"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


def create_app(services: Services) -> ASGIApp:
    """The application over built services; starting and closing the pool is its lifespan."""
    document = msgspec.json.encode(openapi.document(services.version))

    async def openapi_json(call: Call) -> Answer:
        return Answer(document)

    specs = (*route_table(), RouteSpec("GET", "/openapi.json", "public", openapi_json, "This API, described"))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await services.pool.start()
        try:
            yield
        finally:
            await services.pool.close(services.settings.server.drain_s)

    routes = [Route(spec.path, Endpoint(spec, services), methods=[spec.method]) for spec in specs]
    return Onion(Starlette(lifespan=lifespan), routes, services)


class Endpoint:
    """Authenticates, authorises, calls the handler, writes its answer."""

    def __init__(self, spec: RouteSpec, services: Services) -> None:
        self._spec = spec
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send, self._services, self._authorise(scope))
        answer = await self._spec.handler(call)
        if answer is not None:
            await answer.write(send, head=scope["method"] == "HEAD")

    def _authorise(self, scope: Scope) -> Caller | None:
        permission = self._spec.permission
        if permission == "metrics:read" and self._services.settings.server.metrics_public:
            return None
        if permission == "public":
            return None
        caller = self._services.keys.authenticate(Headers(scope=scope))
        if permission not in caller.permissions:
            raise errors.AuthorizationFailed("The key may not do this.")
        return caller


class Onion:
    """What holds for every request: id, version, host check, errors in the envelope, one line in the log.

    Routes are matched here, so that an unknown path and a wrong method answer like everything else; `lifespan` gets
    what is no request.
    """

    def __init__(self, lifespan: ASGIApp, routes: list[Route], services: Services) -> None:
        self._lifespan = lifespan
        self._routes = routes
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._services)
        try:
            exchange.check()
            await self._route(scope).handle(scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = 499
        except errors.InfernoError as error:
            await exchange.fail(error)
        except Exception:
            log.exception("unexpected error")
            await exchange.fail(errors.InternalError("Something went wrong inside."))
        exchange.log()

    def _route(self, scope: Scope) -> Route:
        """The route of a request. A path that exists, but not for this method, is told apart from no path at all."""
        allowed: set[str] = set()
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                scope["route"] = route
                return route
            if match is Match.PARTIAL:
                allowed |= route.methods or set()
        if allowed:
            raise errors.MethodNotAllowed("The method is not allowed here.", allow=", ".join(sorted(allowed)))
        raise errors.NotFound("There is no such route.")


class _Exchange:
    """One request and its answer on the way out."""

    def __init__(self, scope: Scope, send: Send, services: Services) -> None:
        self._scope = scope
        self._send = send
        self._services = services
        self._headers = Headers(scope=scope)
        self._started = time.perf_counter()
        given = self._headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req")
        self.status = 0

    def check(self) -> None:
        version = self._headers.get("api-version")
        if version is not None and version.strip() not in ("1", "1.0", "v1"):
            raise errors.InvalidRequest("The API version is not supported; this is 1.0.", field="API-Version")
        if not self._host_is_ours():
            raise errors.InvalidRequest("The Host header does not name this server.", field="Host")

    def _host_is_ours(self) -> bool:
        """Against DNS rebinding: a page on another name cannot talk to a server on this machine."""
        server = self._services.settings.server
        if server.host in ("0.0.0.0", "::") and not server.allowed_hosts:  # noqa: S104
            return True
        host = re.sub(r":\d+$", "", self._headers.get("host", "localhost")).lower()
        return host in _LOOPBACK_NAMES or host in (server.host, *server.allowed_hosts)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {
                b"x-request-id": self.request_id.encode(),
                b"api-version": API_VERSION.encode(),
                b"x-content-type-options": b"nosniff",
                **self._cors(),
            }
            message = {**message, "headers": [*message["headers"], *own.items()]}
        await self._send(message)

    def _cors(self) -> dict[bytes, bytes]:
        origin = self._headers.get("origin")
        if origin is None or origin not in self._services.settings.server.cors_origins:
            return {}
        return {b"access-control-allow-origin": origin.encode("latin-1"), b"vary": b"Origin"}

    async def fail(self, error: errors.InfernoError) -> None:
        if self.status:
            return  # bytes have left; a second answer is not possible
        openai = self._scope["path"].startswith("/v1/")
        body = envelope(error, self.request_id, openai=openai)
        await Answer(body, STATUS[error.code], headers=headers(error)).write(
            self.send, head=self._scope["method"] == "HEAD"
        )

    def log(self) -> None:
        fields: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self._scope["method"],
            "route": getattr(self._scope.get("route"), "path", self._scope["path"][:200]),
            "status": self.status,
            "ms": round((time.perf_counter() - self._started) * 1000, 1),
        }
        log.info("request", extra={"fields": fields})
