"""GET /status: the state of the service, for people and dashboards."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from inferno.models.pool import Status
from inferno.server.call import Answer, Call
from inferno.server.endpoints.health import devices

_UNLOADED = Status(state="closed", progress=0.0)


async def status(call: Call) -> Answer:
    services = call.services
    ids = await asyncio.to_thread(services.registry.ids)
    statuses = services.pool.statuses()
    return Answer(
        {
            "status": "draining" if services.pool.closing else "serving",
            "version": services.version,
            "uptime_seconds": int(time.monotonic() - services.started),
            "devices": await devices(services),
            "models": [_model(model_id, statuses.get(model_id)) for model_id in sorted({*ids, *statuses})],
        }
    )


def _model(model_id: str, status: Status | None) -> dict[str, Any]:
    shown = status or _UNLOADED
    return {
        "id": model_id,
        "state": shown.state if status else "unloaded",
        "progress": shown.progress,
        "context_size": shown.context_size,
        "memory_bytes": shown.memory_bytes,
        "gpu_layers": shown.placement.gpu_layers,
        "device_bytes": shown.placement.device_bytes,
        "active": shown.leases,
        "restarts": shown.restarts,
    }
