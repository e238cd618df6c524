"""The stream that an accepted Request gets back, and how a Result is made of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable

from inferno import errors
from inferno.request import (
    Choice,
    Delta,
    ErrorInfo,
    Event,
    Finish,
    Request,
    Result,
    Timings,
    TokenLogprob,
    Usage,
)


class Generation:
    """Sans-I/O state of one accepted Request: an engine calls `feed`, a consumer calls `take` or iterates.

    A slow consumer costs no memory per token: waiting deltas of a sequence are merged into one. `feed` may be called
    from another thread than the consumer's, once `wake_in` has named the consumer's event loop.
    """

    def __init__(self, request: Request, sequence_ids: Iterable[int], cancel: Callable[[list[int]], None]) -> None:
        self.request = request
        self._index_of = {sequence_id: index for index, sequence_id in enumerate(sequence_ids)}
        self._open = set(self._index_of)
        self._cancel = cancel
        self._deltas: dict[int, Delta] = {}
        self._finishes: list[Finish] = []
        self._lock = threading.Lock()  # guards the two above
        self._wake = asyncio.Event()
        self._notify: Callable[[], object] = self._wake.set

    def wake_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let `feed` be called from other threads than the one that runs `loop`."""
        self._notify = lambda: loop.call_soon_threadsafe(self._wake.set)

    @property
    def finished(self) -> bool:
        """True once every sequence has had its Finish, taken or not."""
        return not self._open

    @property
    def has_events(self) -> bool:
        """True when `take` would return something."""
        return bool(self._deltas or self._finishes)

    @property
    def pending_bytes(self) -> int:
        """Size of the text that waits to be taken, in UTF-8 bytes."""
        with self._lock:
            return sum(len(delta.text.encode()) for delta in self._deltas.values())

    def feed(self, event: Event) -> None:
        """Take in one event of one of this request's sequences; events after its Finish are dropped."""
        with self._lock:
            if event.id not in self._open:
                return
            if isinstance(event, Finish):
                self._open.discard(event.id)
                self._finishes.append(event)
            elif event.id in self._deltas:
                self._deltas[event.id] = _merged(self._deltas[event.id], event)
            else:
                self._deltas[event.id] = event
        self._notify()

    def fail(self, error: ErrorInfo) -> None:
        """End every open sequence with `error`: the engine is gone."""
        for sequence_id in sorted(self._open):
            self.feed(Finish(sequence_id, "error", Usage(), Timings(), error=error))

    def take(self) -> list[tuple[int, Event]]:
        """What has arrived since the last call, as (choice index, event); a Finish comes after its deltas."""
        self._wake.clear()
        with self._lock:
            events: list[Event] = [*self._deltas.values(), *self._finishes]
            self._deltas, self._finishes = {}, []
        return [(self._index_of[event.id], event) for event in events]

    def cancel(self) -> None:
        """Stop the sequences that still run; they end with reason `cancelled`. Harmless when all have ended."""
        if self._open:
            self._cancel(sorted(self._open))

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        """Yield (choice index, event) until every sequence has ended. Leaving early cancels the rest."""
        try:
            while True:
                for item in self.take():
                    yield item
                if self.finished and not self.has_events:
                    return
                await self._wake.wait()
        finally:
            self.cancel()

    async def result(self) -> Result:
        """All text, once it is complete. Raises the error that ended a sequence."""
        collector = Collector(self.request)
        async for index, event in self:
            collector.add(index, event)
        return collector.result()


class Collector:
    """Builds a Result from the events of one Request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._texts: dict[int, list[str]] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}
        self._choices: dict[int, Choice] = {}

    def add(self, index: int, event: Event) -> None:
        """Raises InferenceFailed or RequestTimeout when `event` ends a sequence that way."""
        if isinstance(event, Delta):
            self._texts.setdefault(index, []).append(event.text)
            self._logprobs.setdefault(index, []).extend(event.logprobs)
            return
        raise_for(event)
        self._choices[index] = Choice(
            index=index,
            text="".join(self._texts.get(index, [])),
            finish_reason=event.reason,
            usage=event.usage,
            timings=event.timings,
            logprobs=self._logprobs.get(index, []),
            stop_match=event.stop_match,
        )

    def result(self) -> Result:
        choices = [self._choices[index] for index in sorted(self._choices)]
        return Result(
            id=self._request.id,
            model=self._request.model,
            created=self._request.created,
            choices=choices,
            usage=total_usage([choice.usage for choice in choices], self._request.n),
        )


def raise_for(finish: Finish) -> None:
    """Raise the exception that a Finish stands for; return when it is a regular end."""
    if finish.reason == "timeout":
        raise errors.RequestTimeout("The request did not finish before its deadline.")
    if finish.reason == "error":
        info = finish.error or ErrorInfo("INFERENCE_FAILED", "The engine failed.")
        raise errors.from_dict({"code": info.code, "message": info.message})


def total_usage(usages: list[Usage], n: int) -> Usage:
    """Sum over choices; each prompt counts once although it has `n` choices."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages[::n]),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages[::n]),
    )


def _merged(first: Delta, second: Delta) -> Delta:
    return Delta(
        first.id,
        first.text + second.text,
        first.n_tokens + second.n_tokens,
        [*first.logprobs, *second.logprobs],
    )
