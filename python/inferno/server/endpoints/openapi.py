"""GET /openapi.json."""

from __future__ import annotations

from inferno.server.call import Answer, Call
from inferno.server.openapi import document
from inferno.server.route import RouteSpec


async def openapi_json(call: Call) -> Answer:
    specs = [route.spec for route in call.scope["router"].routes]
    # OpenAPI has no words for a WebSocket.
    return Answer(document([spec for spec in specs if isinstance(spec, RouteSpec)], call.services.version))
