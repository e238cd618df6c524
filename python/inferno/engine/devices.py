"""The machine's GPUs, asked of the engine in a process of its own: their drivers take memory, and crash."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable

import msgspec

from inferno import _core
from inferno.engine.worker import worker_environment

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-P", "-m", "inferno.engine.devices")
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
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        env=worker_environment(os.environ),
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
        return msgspec.json.decode(output, type=list[Device])
    except (TimeoutError, msgspec.DecodeError):
        log.error("the GPUs could not be listed: their driver failed")
        return []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class KnownDevices:
    """Asked for once, when somebody first wants to know."""

    def __init__(self, ask: Callable[[], Awaitable[list[Device]]] = list_devices) -> None:
        self._ask = ask
        self._asked: asyncio.Future[list[Device]] | None = None

    async def all(self) -> list[Device]:
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asked)


def _main() -> None:
    _core.set_log_level(0)
    sys.stdout.buffer.write(msgspec.json.encode(_core.devices()))


if __name__ == "__main__":
    _main()
