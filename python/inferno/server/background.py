"""Work beside the requests, for as long as the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeAlias

from inferno import errors

log = logging.getLogger(__name__)

Job: TypeAlias = Callable[[], Awaitable[None]]
#: Seconds before a job that failed is started again.
_RESTART_S = 1.0


@contextlib.asynccontextmanager
async def background(jobs: Mapping[str, Job], restart_s: float = _RESTART_S) -> AsyncIterator[None]:
    """Run `jobs`, none of which returns by itself, until the block is left; then they are cancelled and waited for.
    One that fails is logged and started again: nothing of it may be lost by that."""
    tasks = [asyncio.create_task(_kept_running(name, job, restart_s), name=name) for name, job in jobs.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _kept_running(name: str, job: Job, restart_s: float) -> None:
    task = asyncio.current_task()
    assert task is not None
    while True:
        try:
            await job()
        except errors.InfernoError as error:
            log.warning("%s: %s", name, error.message)
        except Exception:
            log.exception("%s failed and is started again", name)
        if task.cancelling():  # it failed over its own end
            return
        await asyncio.sleep(restart_s)


def every(seconds: float, work: Job) -> Job:
    """A job that does `work` again and again, and once more when it is cancelled."""

    async def repeat() -> None:
        try:
            while True:
                await asyncio.sleep(seconds)
                await work()
        except asyncio.CancelledError:
            await work()
            raise

    return repeat
