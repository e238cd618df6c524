"""GET /metrics and its JSON twins, POST /metrics/custom."""

from __future__ import annotations

import asyncio
import time

from prometheus_client.core import Metric

from inferno.models.pool import Status
from inferno.server.call import Answer, Call
from inferno.server.errors import timestamp
from inferno.server.services import Services
from inferno.telemetry import figures
from inferno.telemetry.families import family
from inferno.telemetry.figures import Figures, ModelFigures
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
    uptime = round(time.monotonic() - call.services.started, 3)
    return Answer({"timestamp": timestamp(), "uptime_seconds": uptime, **snapshot(await _families(call))})


async def custom_metric(call: Call) -> Answer:
    body = await call.body()
    name, kind, value = body.text("name"), body.text("type"), body.number("value")
    labels = body.table("labels")
    call.services.custom_metrics.record(name, kind, value, labels)
    return Answer({"status": "recorded", "name": name, "type": kind, "value": value, "labels": labels})


async def _families(call: Call) -> list[Metric]:
    return call.services.metrics.families() + figures.families(await _figures(call.services))


async def _figures(services: Services) -> Figures:
    stats, counts, devices = await asyncio.gather(
        services.pool.stats(), services.census.counts(), services.devices.all()
    )
    return Figures(
        version=services.version,
        started=services.started_at,
        draining=services.pool.closing,
        models={model_id: _of_model(status) for model_id, status in services.pool.statuses().items()},
        stats=stats,
        devices={device.name: device.total_bytes for device in devices},
        batches=None if counts is None else counts.batches,
        batch_items=None if counts is None else counts.items,
    )


def _of_model(status: Status) -> ModelFigures:
    return ModelFigures(
        state=status.state,
        progress=status.progress,
        context_size=status.context_size,
        active=status.leases,
        restarts=status.restarts,
    )
