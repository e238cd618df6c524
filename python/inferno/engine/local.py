"""The engine in this process, with an asynchronous and a synchronous face over the same streams."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from inferno import _core
from inferno.engine import submission
from inferno.engine.generation import Generation
from inferno.engine.streams import EmbeddingJob, Streams
from inferno.request import EmbeddingRequest, Embeddings, EngineStats, Event, ModelInfo, Request

#: How long a blocked thread stays in C++ before it looks for a pending KeyboardInterrupt.
_INTERRUPT_CHECK_S = 0.2

_EVENTS: Any = list[Event]


class LocalEngine:
    """Implements `inferno.engine.protocol.Engine`; any number of threads and event loops may use it at once.

    Nobody polls: asynchronous users are woken through the engine's file descriptor, and of the threads that
    wait one at a time waits for the engine and hands out what comes to the others.
    """

    def __init__(
        self,
        path: str,
        options: Mapping[str, Any] | None = None,
        progress: Callable[[float], bool] | None = None,
    ) -> None:
        """Load the GGUF file at `path`. Raises InvalidRequest, ServiceUnavailable."""
        self._core = _core.Engine(path, dict(options or {}), progress)
        self.info = msgspec.convert(self._core.info, ModelInfo)
        self.memory_bytes: int = self._core.memory["total_bytes"]
        self._streams = Streams()
        self._arrived = threading.Condition()
        self._leading = False  # a thread waits in C++; guarded by _arrived
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    @property
    def context_size(self) -> int:
        return self._core.context_size

    @property
    def core(self) -> _core.Engine:
        return self._core

    # ---- asynchronous face --------------------------------------------------------------------------------------

    async def submit(self, request: Request) -> Generation:
        loop = self._attach()

        def accept() -> Generation:
            ids = submission.submit(self._core, request)
            generation = Generation(request, ids, self._core.cancel)
            generation.wake_in(loop)
            self._add(generation, ids)
            return generation

        accepting = asyncio.ensure_future(asyncio.to_thread(accept))
        try:
            return await asyncio.shield(accepting)
        except asyncio.CancelledError:
            # The thread goes on; nobody is there to read what it accepts.
            accepting.add_done_callback(lambda done: done.exception() or done.result().cancel())
            raise

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        loop = self._attach()
        done = asyncio.Event()

        def accept() -> tuple[EmbeddingJob, list[int]]:
            ids = submission.submit_embeddings(self._core, request)
            job = EmbeddingJob(request, ids, lambda: loop.call_soon_threadsafe(done.set))
            self._add(job, ids)
            return job, ids

        accepting = asyncio.ensure_future(asyncio.to_thread(accept))
        try:
            job, _ = await asyncio.shield(accepting)
            await done.wait()
        except asyncio.CancelledError:
            accepting.add_done_callback(lambda done: done.exception() or self._core.cancel(done.result()[1]))
            raise
        return job.result()

    async def stats(self) -> EngineStats:
        return self.stats_now()

    async def close(self, grace_s: float = 0.0) -> None:
        await asyncio.to_thread(self.close_now, grace_s)

    def _attach(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            loop.add_reader(self._core.wake_fd, self._hand_out)
            self._loops.add(loop)
        return loop

    # ---- synchronous face ---------------------------------------------------------------------------------------

    def submit_now(self, request: Request) -> Generation:
        """Like `submit`; consume the result with `wait`, not with `async for`."""
        ids = submission.submit(self._core, request)
        generation = Generation(request, ids, self._core.cancel)
        self._add(generation, ids)
        return generation

    def embed_now(self, request: EmbeddingRequest) -> Embeddings:
        ids = submission.submit_embeddings(self._core, request)
        job = EmbeddingJob(request, ids, lambda: None)
        self._add(job, ids)
        try:
            self._wait_until(lambda: job.finished)
        except BaseException:
            self._core.cancel(ids)
            raise
        return job.result()

    def wait(self, generation: Generation) -> list[tuple[int, Event]]:
        """Block until `generation` has events; return them. An empty list says that it has ended."""
        events = generation.take()
        while not events and not generation.finished:
            self._wait_until(lambda: generation.finished or generation.has_events)
            events = generation.take()
        return events or generation.take()

    def wait_finished(self, generation: Generation) -> None:
        """Block until `generation` has ended; its events stay to be taken."""
        self._wait_until(lambda: generation.finished)

    def stats_now(self) -> EngineStats:
        return msgspec.convert({**self._core.stats(), "memory_bytes": self.memory_bytes}, EngineStats)

    def close_now(self, grace_s: float = 0.0) -> None:
        self._core.close(grace_s)
        self._hand_out()

    # ---- both ---------------------------------------------------------------------------------------------------

    def _add(self, consumer: Generation | EmbeddingJob, ids: list[int]) -> None:
        with self._arrived:
            self._streams.add(consumer, ids)
            self._arrived.notify_all()

    def _hand_out(self) -> None:
        with self._arrived:
            for event in msgspec.convert(self._core.drain(), _EVENTS):
                self._streams.feed(event)
            self._arrived.notify_all()

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        while True:
            with self._arrived:
                while not ready() and self._leading:
                    self._arrived.wait()
                if ready():
                    return
                self._leading = True
            try:
                self._core.wait(_INTERRUPT_CHECK_S)
                self._hand_out()
            finally:
                with self._arrived:
                    self._leading = False
                    self._arrived.notify_all()
