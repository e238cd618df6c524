"""The engine in this process, with an asynchronous and a synchronous face over the same streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from inferno.engine import embedding
from inferno.engine.core import OpenCore, open_core
from inferno.engine.generation import Collector, EmbeddingJob, Generation, SequenceStream
from inferno.engine.protocol import EngineState
from inferno.engine.streams import Streams, or_cancel
from inferno.engine.submission import Submitter
from inferno.request import EmbeddingRequest, Embeddings, EngineStats, Event, ModelInfo, Placement, Request, Result

_EVENTS: Any = list[Event]


class LocalEngine:
    """Implements `inferno.engine.protocol.Engine`; any number of threads and event loops may use it at once.

    Whoever waits drains the engine's events for all: an event loop watches the engine's descriptor while one of
    its tasks waits, and of the threads that wait one leads. Nobody polls and no thread runs in the background.
    """

    def __init__(
        self,
        path: str,
        options: Mapping[str, Any] | None = None,
        progress: Callable[[float], bool] | None = None,
        *,
        open_core: OpenCore = open_core,
    ) -> None:
        """Load the GGUF file at `path`; blocking. `progress` gets fractions from 0 to 1 and stops the load by
        returning False. Raises InvalidRequest, ServiceUnavailable."""
        core = open_core(path, dict(options or {}), progress)
        self._core = core
        self.info = msgspec.convert(core.info, ModelInfo)
        self.memory_bytes: int = core.memory["total_bytes"]
        self.placement = msgspec.convert(core.memory, Placement)
        self._submitter = Submitter(core, self.info)
        self._streams = Streams()
        self._draining = threading.Lock()  # events are handed out in the order they are drained
        self._lead = _Lead(core.wake_fd)
        self._waiting: Counter[asyncio.AbstractEventLoop] = Counter()  # each item is its own loop's business
        self._closed = False

    @property
    def context_size(self) -> int:
        return self._core.context_size

    @property
    def state(self) -> EngineState:
        return "closed" if self._closed else "ready"

    @property
    def healthy(self) -> bool:
        return not self._closed

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return self._core.tokenize(text, add_special, parse_special)

    def detokenize(self, tokens: Sequence[int], render_special: bool = False) -> str:
        return self._core.detokenize(tokens, render_special)

    # ---- asynchronous face --------------------------------------------------------------------------------------

    async def submit(self, request: Request) -> Generation:
        return await or_cancel(asyncio.to_thread(self.submit_now, request))

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        done = []
        for first, part in embedding.parts(request):
            job = await or_cancel(asyncio.to_thread(self._submit_embeddings, part, first))
            done.append(await job.result())
        return embedding.joined(request.model, done)

    async def stats(self) -> EngineStats:
        return self.stats_now()

    async def close(self, grace_s: float = 0.0) -> None:
        await asyncio.to_thread(self.close_now, grace_s)

    @contextlib.contextmanager
    def _listen(self) -> Iterator[None]:
        """While a task waits, its event loop drains."""
        loop = asyncio.get_running_loop()
        self._waiting[loop] += 1
        if self._waiting[loop] == 1:
            loop.add_reader(self._core.wake_fd, self._hand_out)
        try:
            yield
        finally:
            self._waiting[loop] -= 1
            if not self._waiting[loop]:
                del self._waiting[loop]
                loop.remove_reader(self._core.wake_fd)

    # ---- synchronous face ---------------------------------------------------------------------------------------

    def submit_now(self, request: Request) -> Generation:
        """Like `submit`, blocking while the prompts are tokenised."""
        with self._streams.expect():
            ids, prompt_tokens = self._submitter.submit(request)
            generation = Generation(request, ids, prompt_tokens, self._core.cancel, self._listen)
            self._streams.add(generation)
        return generation

    def events(self, stream: SequenceStream) -> Generator[tuple[int, Event], None, None]:
        """Yield (choice index, event) until every sequence has ended, blocking in between. Leaving early cancels."""
        try:
            while not stream.exhausted:
                self._wait(stream)
                yield from stream.take()
        finally:
            stream.cancel()

    def result(self, generation: Generation) -> Result:
        """All text, once it is complete. Raises the error that ended a sequence."""
        generation.ends_only()
        collector = Collector(generation.request)
        with contextlib.closing(self.events(generation)) as events:
            for index, event in events:
                collector.add(index, event)
        return collector.result()

    def embed_now(self, request: EmbeddingRequest) -> Embeddings:
        done = []
        for first, part in embedding.parts(request):
            job = self._submit_embeddings(part, first)
            done.append(job.collect(dict(self.events(job))))
        return embedding.joined(request.model, done)

    def stats_now(self) -> EngineStats:
        known = {"memory_bytes": self.memory_bytes, "placement": self.placement}
        return msgspec.convert({**self._core.stats(), **known}, EngineStats)

    def close_now(self, grace_s: float = 0.0) -> None:
        self._closed = True
        self._core.close(grace_s)
        self._hand_out()

    def _submit_embeddings(self, request: EmbeddingRequest, first: int) -> EmbeddingJob:
        with self._streams.expect():
            ids, _ = self._submitter.submit_embeddings(request, first)
            job = EmbeddingJob(request, ids, self._core.cancel, self._listen)
            self._streams.add(job)
        return job

    def _wait(self, stream: SequenceStream) -> None:
        """Block until `stream` has something to take or has ended."""
        with self._lead.candidate() as waiter:
            while True:
                if self._lead.take(waiter):
                    try:
                        while not stream.ring_when_ready(waiter.ring):
                            self._lead.wait_for_events()
                            self._hand_out()
                        return
                    finally:
                        self._lead.give_up()
                if stream.ring_when_ready(waiter.ring):
                    return
                waiter.wait()

    # ---- both ---------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        with self._draining:
            self._streams.feed(msgspec.convert(self._core.drain(), _EVENTS))


class _Lead:
    """Of the threads that wait, at most one leads: it waits for the engine, the others for it. When it stops, another
    one is woken to take over."""

    def __init__(self, wake_fd: int) -> None:
        self._taken = threading.Lock()
        self._lock = threading.Lock()
        self._candidates: set[_Waiter] = set()  # guarded by _lock
        self._leader: _Waiter | None = None  # written by whoever holds _taken
        # Ends the leader's wait when somebody else has drained what it waits for.
        self._interrupt_fd, interrupting_fd = os.pipe()
        self._interrupting_fd = interrupting_fd
        os.set_blocking(self._interrupt_fd, False)
        os.set_blocking(interrupting_fd, False)
        weakref.finalize(self, _close, self._interrupt_fd, interrupting_fd)
        self._poll = select.poll()
        self._poll.register(wake_fd, select.POLLIN)
        self._poll.register(self._interrupt_fd, select.POLLIN)

    @contextlib.contextmanager
    def candidate(self) -> Iterator[_Waiter]:
        """Inside, the waiter is also rung when the lead is free."""
        waiter = _Waiter(self)
        with self._lock:
            self._candidates.add(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                self._candidates.discard(waiter)
                if self._candidates and not self._taken.locked():
                    next(iter(self._candidates)).ring()

    def take(self, waiter: _Waiter) -> bool:
        if not self._taken.acquire(blocking=False):
            return False
        self._leader = waiter
        return True

    def give_up(self) -> None:
        self._leader = None
        self._taken.release()

    def wait_for_events(self) -> None:
        """Until the engine has events or the leader is rung. A signal interrupts it, unlike a wait in C++."""
        for descriptor, _ in self._poll.poll():
            if descriptor == self._interrupt_fd:
                os.read(self._interrupt_fd, 4096)

    def interrupt(self, waiter: _Waiter) -> None:
        if self._leader is waiter:
            with contextlib.suppress(BlockingIOError):  # full: it is readable already
                os.write(self._interrupting_fd, b"x")


class _Waiter:
    """One thread that waits. May be rung from any thread, also before it waits."""

    def __init__(self, lead: _Lead) -> None:
        self._lead = lead
        self._thread = threading.get_ident()
        self._rung = threading.Event()

    def ring(self) -> None:
        self._rung.set()
        if threading.get_ident() != self._thread:
            self._lead.interrupt(self)

    def wait(self) -> None:
        self._rung.wait()
        self._rung.clear()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
