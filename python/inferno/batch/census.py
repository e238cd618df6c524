"""How many batches there are, for whoever asks how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from inferno import errors
from inferno.batch import jobs
from inferno.batch.jobs import Counts
from inferno.store.database import Database

#: Seconds for which an answer is good.
_FRESH_S = 1.0
#: Seconds to wait for one.
_PATIENCE_S = 2.0


class Census:
    """Asks the database once a second at most, and one question at a time."""

    def __init__(
        self, database: Database, *, patience_s: float = _PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._patience_s = patience_s
        self._clock = clock
        self._asking: asyncio.Task[Counts] | None = None
        self._asked = 0.0

    async def counts(self) -> Counts | None:
        """None when the database does not answer in time."""
        task = self._task()
        if not task.done():
            await asyncio.wait([task], timeout=self._patience_s)  # leaves it to others who wait
        try:
            return task.result()
        except (errors.ServiceUnavailable, asyncio.InvalidStateError):
            return None

    def _task(self) -> asyncio.Task[Counts]:
        if self._asking is None or (self._asking.done() and self._clock() >= self._asked + _FRESH_S):
            self._asked = self._clock()
            self._asking = asyncio.create_task(self._database.read(jobs.count))
        return self._asking
