"""The ASGI application: routes, the exchange around each of them, and the pool's lifespan. Composition only."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from inferno import errors
from inferno.server.background import background, every
from inferno.server.endpoint import endpoints
from inferno.server.exchange import Exchanges
from inferno.server.routes import route_table
from inferno.server.services import Services

#: How often it is written down when keys were last used.
_KEY_USE_S = 30.0
_DAY_S = 86400.0
#: How long the spans that still wait may take to reach their collector when the server stops.
_LAST_SPANS_S = 2.0


def create_app(services: Services) -> ASGIApp:
    """The application over built services; its lifespan starts and closes the pool."""

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        jobs = {
            "key use": every(_KEY_USE_S, services.authenticator.flush),
            "batches": services.batches.run,
            "webhooks": services.webhooks.run,
            "old webhook messages": every(_DAY_S, services.webhooks.forget_old),
        }
        await services.pool.start()
        try:
            async with background(jobs):
                yield
                await services.announcements.settle()
        finally:
            await services.pool.close(services.settings.server.drain_s)
            await services.traces.close(_LAST_SPANS_S)

    routes = endpoints(route_table(), services)
    return Exchanges(Router(routes, redirect_slashes=False, default=_no_route, lifespan=lifespan), services)


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise errors.NotFound("There is no such route.")
