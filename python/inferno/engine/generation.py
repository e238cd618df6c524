"""The stream that an accepted request gets back, and how a Result is made of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from inferno import errors
from inferno.request import (
    Choice,
    Delta,
    EmbeddingRequest,
    Embeddings,
    ErrorInfo,
    Event,
    Finish,
    Request,
    Result,
    Timings,
    TokenLogprob,
    Usage,
)


class SequenceStream:
    """Sans-I/O state of the sequences of one accepted request: an engine calls `feed`, one consumer takes.

    The two may be on different threads. A slow consumer costs no memory per token: waiting deltas of a sequence
    are merged into one.
    """

    def __init__(
        self,
        sequence_ids: Iterable[int],
        cancel: Callable[[list[int]], None],
        listen: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """`cancel` stops sequences; `listen` is entered while an asynchronous consumer waits."""
        self._index_of = {sequence_id: index for index, sequence_id in enumerate(sequence_ids)}
        self._cancel = cancel
        self._listen = listen
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._open = set(self._index_of)
        self._deltas: dict[int, Delta] = {}
        self._finishes: list[Finish] = []
        self._pending_bytes = 0
        self._n_tokens: dict[int, int] = {}  # of the completions
        self._ends_only = False
        self._nudged = False
        self._ring: Callable[[], object] | None = None

    @property
    def sequence_ids(self) -> list[int]:
        """The engine's ids, in choice order."""
        return list(self._index_of)

    @property
    def finished(self) -> bool:
        """True once every sequence has had its Finish, taken or not."""
        return not self._open

    @property
    def exhausted(self) -> bool:
        """True once every sequence has had its Finish and all of it has been taken."""
        with self._lock:
            return not (self._open or self._deltas or self._finishes)

    @property
    def has_events(self) -> bool:
        """True when `take` would return something."""
        with self._lock:
            return bool(self._deltas or self._finishes)

    @property
    def pending_bytes(self) -> int:
        """Size of the text that waits to be taken, in UTF-8 bytes."""
        return self._pending_bytes

    # ---- the engine's side --------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Take in one event of one of this request's sequences; events after its Finish are dropped."""
        with self._lock:
            if event.id not in self._open:
                return
            if isinstance(event, Finish):
                self._open.discard(event.id)
                self._finishes.append(event)
                # What an engine that is gone has said counts, though its Finish knows of nothing.
                said = self._n_tokens.get(event.id, 0)
                self._n_tokens[event.id] = max(said, event.usage.completion_tokens)
            else:
                self._hold(event)
            ring = self._ring if self._worth_a_wake() else None
        if ring is not None:
            ring()

    def fail(self, error: ErrorInfo) -> None:
        """End every open sequence with `error`: the engine is gone."""
        for sequence_id in sorted(self._open):
            self.feed(Finish(sequence_id, "error", Usage(), Timings(), error=error))

    def _hold(self, delta: Delta) -> None:
        self._n_tokens[delta.id] = self._n_tokens.get(delta.id, 0) + delta.n_tokens
        held = self._deltas.get(delta.id)
        self._deltas[delta.id] = delta if held is None else _merged(held, delta)
        self._pending_bytes += len(delta.text) if delta.text.isascii() else len(delta.text.encode())

    def _worth_a_wake(self) -> bool:
        return bool(self._finishes or (self._deltas and not self._ends_only))

    # ---- the consumer's side ------------------------------------------------------------------------------------

    def take(self) -> list[tuple[int, Event]]:
        """What has arrived since the last call, as (choice index, event); a Finish comes after its deltas."""
        with self._lock:
            events: list[Event] = [*self._deltas.values(), *self._finishes]
            self._deltas, self._finishes, self._pending_bytes = {}, [], 0
        return [(self._index_of[event.id], event) for event in events]

    def ring_when_ready(self, ring: Callable[[], object]) -> bool:
        """True when there is something to take or nothing to wait for. Else `ring` will be called, on the feeding
        thread and perhaps more than once, when something has arrived."""
        with self._lock:
            if self._worth_a_wake() or self._nudged or not self._open:
                self._ring, self._nudged = None, False
                return True
            self._ring = ring
            return False

    def ends_only(self) -> None:
        """From now on only the end of a sequence is worth waking for: the consumer wants no pieces."""
        with self._lock:
            self._ends_only = True

    def cancel(self) -> None:
        """Stop the sequences that still run; they end with reason `cancelled`. Harmless when all have ended."""
        with self._lock:
            still_open = sorted(self._open)
        if still_open:
            self._cancel(still_open)

    async def __aiter__(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Yield (choice index, event) until every sequence has ended. Leaving early cancels the rest.

        After an early `break` or an exception in the loop's body, that happens when the iterator is closed; use
        `contextlib.aclosing` or call `cancel` to have it at once.
        """
        try:
            while not self.exhausted:
                for item in self.take():
                    yield item
                await self.arrived()
        finally:
            self.cancel()

    async def arrived(self) -> None:
        """Wait until there is something to take, or nothing to wait for, or `nudge` is called."""
        bell = _AsyncBell()
        if not self.ring_when_ready(bell.ring):
            with self._listen():
                await bell.rung

    def nudge(self) -> None:
        """End the wait of `arrived`, or the next one: for the consumer's own timers."""
        with self._lock:
            self._nudged = True
            ring = self._ring
        if ring is not None:
            ring()


class Generation(SequenceStream):
    """The stream of one accepted Request."""

    def __init__(
        self,
        request: Request,
        sequence_ids: Iterable[int],
        prompt_tokens: int,
        cancel: Callable[[list[int]], None],
        listen: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """`prompt_tokens` counts each prompt once, whatever `n` is."""
        super().__init__(sequence_ids, cancel, listen)
        self.request = request
        self._prompt_tokens = prompt_tokens

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompts, each once, and of the completions so far."""
        return self._prompt_tokens + sum(self._n_tokens.values())

    async def result(self) -> Result:
        """All text, once it is complete. Raises the error that ended a sequence."""
        self.ends_only()
        collector = Collector(self.request)
        async with contextlib.aclosing(self.__aiter__()) as events:
            async for index, event in events:
                collector.add(index, event)
        return collector.result()


class EmbeddingJob(SequenceStream):
    """The stream of one accepted EmbeddingRequest: no text, one vector in each Finish."""

    def __init__(
        self,
        request: EmbeddingRequest,
        sequence_ids: Iterable[int],
        cancel: Callable[[list[int]], None],
        listen: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        super().__init__(sequence_ids, cancel, listen)
        self.request = request

    async def result(self) -> Embeddings:
        """All vectors. Raises the error that ended a sequence."""
        ends: dict[int, Event] = {}
        async with contextlib.aclosing(self.__aiter__()) as events:
            async for index, event in events:
                ends[index] = event
        return self.collect(ends)

    def collect(self, ends: dict[int, Event]) -> Embeddings:
        """Vectors in input order from the Finish of each input. Raises the first error."""
        finishes = [end for _, end in sorted(ends.items()) if isinstance(end, Finish)]
        return Embeddings(
            model=self.request.model,
            vectors=[_vector(finish) for finish in finishes],
            usage=Usage(prompt_tokens=sum(finish.usage.prompt_tokens for finish in finishes)),
        )


class Collector:
    """Builds a Result from the events of one Request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._texts: dict[int, list[str]] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}
        self._finishes: dict[int, Finish] = {}

    def add(self, index: int, event: Event) -> None:
        """Raises InferenceFailed, RequestTimeout or InvalidRequest when `event` ends a sequence that way."""
        if isinstance(event, Delta):
            self._texts.setdefault(index, []).append(event.text)
            self._logprobs.setdefault(index, []).extend(event.logprobs)
            return
        self._finishes[index] = event
        raise_for(event)

    def result(self) -> Result:
        """Requires: every choice has had its Finish. Raises what `add` has raised."""
        choices = [self._choice(index, finish) for index, finish in sorted(self._finishes.items())]
        return Result(
            id=self._request.id,
            model=self._request.model,
            created=self._request.created,
            choices=choices,
            usage=total_usage([choice.usage for choice in choices], self._request.n),
        )

    def _choice(self, index: int, finish: Finish) -> Choice:
        raise_for(finish)
        return Choice(
            index=index,
            text="".join(self._texts.get(index, [])),
            finish_reason=finish.reason,
            usage=finish.usage,
            timings=finish.timings,
            logprobs=self._logprobs.get(index, []),
            stop_match=finish.stop_match,
        )


def raise_for(finish: Finish) -> None:
    """Raise the exception that a Finish stands for; return when it is a regular end."""
    if finish.reason == "timeout":
        raise errors.RequestTimeout("The request did not finish before its deadline.")
    if finish.reason == "error":
        info = finish.error or ErrorInfo("INFERENCE_FAILED", "The engine failed.")
        raise errors.from_dict({"code": info.code, "message": info.message})


def total_usage(usages: Sequence[Usage], n: int) -> Usage:
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
        [*first.logprobs, *second.logprobs] if second.logprobs else first.logprobs,
    )


def _vector(finish: Finish) -> bytes:
    raise_for(finish)
    if finish.embedding is None:  # cancelled, and not by who waits for it
        raise errors.ServiceUnavailable("The embedding was cut off: the model was unloaded.", retry_after=1)
    return finish.embedding


class _AsyncBell:
    """A future that any thread may complete."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.rung: asyncio.Future[None] = self._loop.create_future()

    def ring(self) -> None:
        if _running_loop() is self._loop:
            self._complete()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
                self._loop.call_soon_threadsafe(self._complete)

    def _complete(self) -> None:
        if not self.rung.done():
            self.rung.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
