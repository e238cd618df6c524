"""GET /metrics and its JSON twins, POST /metrics/custom."""

from __future__ import annotations

import time

from prometheus_client.core import Metric

from inferno.server.call import Answer, Call
from inferno.server.errors import timestamp
from inferno.telemetry.families import family
from inferno.telemetry.metrics import CONTENT_TYPE, exposition
from inferno.telemetry.snapshot import snapshot


async def metrics(call: Call) -> Answer:
    text = exposition(await _families(call)) + call.services.custom_metrics.exposition()
    return Answer(text, media_type=CONTENT_TYPE)


async def metrics_json(call: Call) -> Answer:
    families = [family(metric) for metric in await _families(call)]
    return Answer({"metrics": families + call.services.custom_metrics.families()})


async def metrics_snapshot(call: Call) -> Answer:
    """A clock stands in it, so that two of them make a rate."""
    services = call.services
    states = {model_id: status.state for model_id, status in services.pool.statuses().items()}
    uptime = round(time.monotonic() - services.started, 3)
    folded = snapshot(await _families(call), states)
    return Answer({"timestamp": timestamp(), "uptime_seconds": uptime, **folded})


async def custom_metric(call: Call) -> Answer:
    body = await call.body()
    name, kind, value = body.text("name"), body.text("type"), body.number("value")
    labels = body.table("labels")
    call.services.custom_metrics.record(name, kind, value, labels)
    return Answer({"status": "recorded", "name": name, "type": kind, "value": value, "labels": labels})


async def _families(call: Call) -> list[Metric]:
    pool = call.services.pool
    statuses, stats = pool.statuses(), await pool.stats()
    loaded = [model_id for model_id, status in statuses.items() if status.state == "ready"]
    restarts = {model_id: status.restarts for model_id, status in statuses.items()}
    return call.services.metrics.families(stats, loaded, restarts)
