"""GET /openapi.json."""

from __future__ import annotations

from inferno.server.call import Answer, Call
from inferno.server.openapi import document


async def openapi_json(call: Call) -> Answer:
    routes = call.scope["router"].routes
    return Answer(document([route.spec for route in routes], call.services.version))
