"""The machine's GPUs, asked of the engine in a process of its own: their drivers take memory, and crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from inferno import _core
from inferno.engine import child

log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is gpu, integrated (shares the host's memory) or software (the processor). 0 bytes: the driver does not
    say."""

    name: str
    description: str
    kind: str
    total_bytes: int
    free_bytes: int


async def list_devices() -> list[Device]:
    """Those that this build of the engine can use. A driver that fails is logged, and there are none."""
    if not _core.gpu_backends():
        return []
    try:
        return msgspec.convert(await child.ask("devices", {}, _TIMEOUT_S), list[Device])
    except (TimeoutError, child.Died):
        log.error("the GPUs could not be listed: their driver failed")
        return []


class KnownDevices:
    """Asked for once, when somebody first wants to know."""

    def __init__(self, ask: Callable[[], Awaitable[list[Device]]] = list_devices) -> None:
        self._ask = ask
        self._asked: asyncio.Future[list[Device]] | None = None

    async def all(self) -> list[Device]:
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asked)
