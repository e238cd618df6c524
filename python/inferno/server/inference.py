"""The one way from a Request to its text, for HTTP and WebSocket alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable

import msgspec

from inferno import errors
from inferno.engine.generation import Generation
from inferno.identity.callers import Caller
from inferno.identity.limits import Admission
from inferno.request import FinishReason, Prompt, Request, Result
from inferno.server.services import Services
from inferno.telemetry.observation import Observation
from inferno.telemetry.origin import Origin

#: Set aside for a completion whose length nobody said.
_USUAL_TOKENS = 512


class Accepted(msgspec.Struct, frozen=True):
    """A request that an engine works on. `began` is when it came, by `time.perf_counter`."""

    generation: Generation
    observed: Observation
    began: float

    @property
    def elapsed_ms(self) -> int:
        return round((time.perf_counter() - self.began) * 1000)

    def observe(self, result: Result) -> None:
        """Tell metrics and traces of a text that was not followed event by event."""
        for choice in result.choices:
            self.observed.sequence(choice.timings, choice.usage, choice.finish_reason)
        self.observed.usage(result.usage)


@contextlib.asynccontextmanager
async def accepted(
    services: Services, caller: Caller, admission: Admission | None, request: Request, origin: Origin
) -> AsyncIterator[Accepted]:
    """Around one request. Entering raises what limits, pool and engine refuse it with; once inside, a queue place is
    taken. Leaving in any way cancels what still runs and settles the tokens."""
    began = time.perf_counter()
    caller.require_model(request.model)
    request = msgspec.structs.replace(
        request, timeout_s=services.settings.server.request_timeout_s, cache_salt=caller.salt
    )
    with services.observe(request, origin) as observed:
        most = request.sampling.get("max_tokens") or _USUAL_TOKENS
        reservation = reserved(admission, request.prompts, most * len(request.prompts) * request.n)
        async with reservation as spent, services.pool.lease(request.model) as lease:
            observed.admitted()
            generation = await lease.engine.submit(request)
            try:
                yield Accepted(generation, observed, began)
            finally:
                generation.cancel()
                spent.tokens = generation.n_tokens
        if (usage := observed.answered) is not None:
            elapsed_ms = round((time.perf_counter() - began) * 1000)
            services.announcements.inference(caller.user_id, origin.request_id, request.model, usage, elapsed_ms)


class Spent:
    """What a request has used, prompt and completion together."""

    tokens = 0


@contextlib.asynccontextmanager
async def reserved(
    admission: Admission | None, prompts: Iterable[Prompt], completion_tokens: int
) -> AsyncIterator[Spent]:
    """Tokens set aside for a request, settled to what the block says it spent. Raises Exceeded."""
    spent = Spent()
    if admission is None:
        yield spent
        return
    await admission.reserve(sum(prompt.n_characters for prompt in prompts), completion_tokens)
    try:
        yield spent
    finally:
        await admission.settle(spent.tokens)


def refuse_cancelled(reason: FinishReason) -> None:
    """A text that was cancelled, but not by its client, was cut off by us. Raises ServiceUnavailable."""
    if reason == "cancelled":
        message = "The text was cut off: the model was unloaded or the server is stopping."
        raise errors.ServiceUnavailable(message, retry_after=1)
