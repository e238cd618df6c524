"""GET /metrics."""

from __future__ import annotations

from inferno.server.call import Answer, Call
from inferno.telemetry.metrics import CONTENT_TYPE


async def metrics(call: Call) -> Answer:
    pool = call.services.pool
    statuses, stats = pool.statuses(), await pool.stats()
    loaded = [model_id for model_id, status in statuses.items() if status.state == "ready"]
    restarts = {model_id: status.restarts for model_id, status in statuses.items()}
    return Answer(call.services.metrics.render(stats, loaded, restarts), media_type=CONTENT_TYPE)
