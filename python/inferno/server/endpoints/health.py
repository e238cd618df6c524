"""GET /health, /livez, /readyz."""

from __future__ import annotations

import time
from typing import Any

from inferno.server.call import Answer, Call
from inferno.server.services import Services


async def health(call: Call) -> Answer:
    """With `?details=1` also the devices."""
    services = call.services
    details = {"devices": await devices(services)} if call.query_integer("details", 0, 0, 1) else {}
    states = [status.state for status in services.pool.statuses().values()]
    return Answer(
        {
            "status": "healthy",
            "version": services.version,
            "uptime_seconds": int(time.monotonic() - services.started),
            "models_loaded": states.count("ready"),
            **details,
        }
    )


async def devices(services: Services) -> list[dict[str, Any]]:
    """GPUs, and what the models that are loaded take of each."""
    placements = [status.placement for status in services.pool.statuses().values()]
    return [
        {
            "name": device.name,
            "description": device.description,
            "kind": device.kind,
            "total_bytes": device.total_bytes,
            "used_bytes": sum(placement.device_bytes.get(device.name, 0) for placement in placements),
        }
        for device in await services.devices.all()
    ]


async def livez(call: Call) -> Answer:
    """The process runs its event loop; nothing is asked of the engines."""
    return Answer({"status": "alive"})


async def readyz(call: Call) -> Answer:
    """Every loaded engine has just answered, and the server is not about to stop."""
    await call.services.pool.ready()
    return Answer({"status": "ready"})
