"""The one way from a Request to its text, for HTTP and WebSocket alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

from inferno import errors
from inferno.engine.generation import Generation
from inferno.identity.keys import Caller
from inferno.request import FinishReason, Request, Result
from inferno.server.services import Services
from inferno.telemetry.metrics import Observation


class Accepted(msgspec.Struct, frozen=True):
    """A request that an engine works on. `began` is when it came, by `time.perf_counter`."""

    generation: Generation
    observed: Observation
    began: float

    @property
    def elapsed_ms(self) -> int:
        return round((time.perf_counter() - self.began) * 1000)

    def observe(self, result: Result) -> None:
        """Tell the metrics of a text that was not followed event by event."""
        for choice in result.choices:
            self.observed.sequence(choice.timings, choice.usage)
        self.observed.usage(result.usage)


@contextlib.asynccontextmanager
async def accepted(services: Services, caller: Caller | None, request: Request) -> AsyncIterator[Accepted]:
    """Around one request. Entering raises what pool and engine refuse it with; once inside, a queue place is taken.
    Leaving in any way cancels what still runs."""
    began = time.perf_counter()
    request = msgspec.structs.replace(
        request,
        timeout_s=services.settings.server.request_timeout_s,
        cache_salt=caller.salt if caller else 0,
    )
    with services.metrics.inference(request.model) as observed:
        async with services.pool.lease(request.model) as lease:
            observed.admitted()
            generation = await lease.engine.submit(request)
            try:
                yield Accepted(generation, observed, began)
            finally:
                generation.cancel()


def refuse_cancelled(reason: FinishReason) -> None:
    """A text that was cancelled, but not by its client, was cut off by us. Raises ServiceUnavailable."""
    if reason == "cancelled":
        message = "The text was cut off: the model was unloaded or the server is stopping."
        raise errors.ServiceUnavailable(message, retry_after=1)
