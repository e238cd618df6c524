"""GET /health, /livez, /readyz."""

from __future__ import annotations

import time

from inferno.server.call import Answer, Call


async def health(call: Call) -> Answer:
    services = call.services
    states = [status.state for status in services.pool.statuses().values()]
    return Answer(
        {
            "status": "healthy",
            "version": services.version,
            "uptime_seconds": int(time.monotonic() - services.started),
            "models_loaded": states.count("ready"),
        }
    )


async def livez(call: Call) -> Answer:
    """The process runs its event loop; nothing is asked of the engines."""
    return Answer({"status": "alive"})


async def readyz(call: Call) -> Answer:
    """Every loaded engine has just answered, and the server is not about to stop."""
    await call.services.pool.ready()
    return Answer({"status": "ready"})
