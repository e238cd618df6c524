"""GET /traces."""

from __future__ import annotations

from inferno.server.call import Answer, Call


async def traces(call: Call) -> Answer:
    """The caller's own, or all for those who may read the metrics of all."""
    caller = call.known_caller
    sees_all = "metrics:read" in caller.permissions
    limit = call.query_integer("limit", 100, 1, 1000)
    return Answer({"traces": call.services.traces.newest(limit, None if sees_all else caller.user_id)})
