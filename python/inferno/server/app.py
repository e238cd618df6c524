"""The ASGI application: routes, the exchange around each of them, and the pool's lifespan. Composition only."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from inferno import errors
from inferno.server.endpoint import Socket, endpoints
from inferno.server.exchange import Exchanges
from inferno.server.routes import route_table, socket_table
from inferno.server.services import Services


def create_app(services: Services) -> ASGIApp:
    """The application over built services; its lifespan starts and closes the pool."""

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await services.pool.start()
        try:
            yield
        finally:
            await services.pool.close(services.settings.server.drain_s)

    sockets = [Socket(spec, services) for spec in socket_table()]
    routes = [*sockets, *endpoints(route_table(), services)]
    return Exchanges(Router(routes, redirect_slashes=False, default=_no_route, lifespan=lifespan), services)


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise errors.NotFound("There is no such route.")
