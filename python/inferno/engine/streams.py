"""Which stream each sequence of an engine belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from inferno.engine.generation import SequenceStream
from inferno.request import ErrorInfo, Event, Finish

StreamT = TypeVar("StreamT", bound=SequenceStream)


class Streams:
    """Sequence id -> stream. Thread-safe.

    A sequence may speak before the ids of its request have come back from the engine. Such events are kept for it
    as long as someone is inside `expect`; without anyone there, events of unknown sequences are dropped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._streams: dict[int, SequenceStream] = {}
        self._early: dict[int, list[Event]] = {}
        self._expected = 0

    def __len__(self) -> int:
        """Sequences that have not ended."""
        return len(self._streams)

    @contextlib.contextmanager
    def expect(self) -> Iterator[None]:
        """Enter before ids are asked for, leave after `add`."""
        with self._lock:
            self._expected += 1
        try:
            yield
        finally:
            with self._lock:
                self._expected -= 1
                if not self._expected:
                    self._early.clear()

    def add(self, stream: SequenceStream) -> None:
        """Hand over the events that came early, and from now on all others."""
        with self._lock:
            for sequence_id in stream.sequence_ids:
                self._streams[sequence_id] = stream
                for event in self._early.pop(sequence_id, ()):
                    self._feed(event)

    def feed(self, events: Iterable[Event]) -> None:
        """Hand out `events`, in order."""
        with self._lock:
            for event in events:
                self._feed(event)

    def fail_all(self, error: ErrorInfo) -> None:
        """End every open sequence: the engine is gone."""
        with self._lock:
            streams = {id(stream): stream for stream in self._streams.values()}
            self._streams.clear()
            self._early.clear()
        for stream in streams.values():
            stream.fail(error)

    def _feed(self, event: Event) -> None:
        stream = self._streams.get(event.id)
        if stream is None:
            if self._expected:
                self._early.setdefault(event.id, []).append(event)
            return
        if isinstance(event, Finish):
            del self._streams[event.id]
        stream.feed(event)


async def or_cancel(accepting: Coroutine[Any, Any, StreamT]) -> StreamT:
    """The stream that `accepting` yields. When the caller gives up waiting for it, the stream is cancelled as soon
    as it exists: no accepted work is left that nobody wants."""
    task = asyncio.ensure_future(accepting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_cancel_stream)
        raise


def _cancel_stream(task: asyncio.Task[StreamT]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().cancel()
