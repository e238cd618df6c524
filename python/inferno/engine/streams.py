"""Which Generation or embedding job each sequence of an engine belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from inferno import errors
from inferno.engine.generation import raise_for
from inferno.request import (
    EmbeddingRequest,
    Embeddings,
    ErrorInfo,
    Event,
    Finish,
    Timings,
    Usage,
)


class Consumer(Protocol):
    """What events are given to."""

    @property
    def finished(self) -> bool: ...

    def feed(self, event: Event) -> None: ...

    def fail(self, error: ErrorInfo) -> None: ...


class EmbeddingJob:
    """Collects the vectors of one EmbeddingRequest; calls `on_finish` once when all are there."""

    def __init__(self, request: EmbeddingRequest, sequence_ids: list[int], on_finish: Callable[[], None]) -> None:
        self._request = request
        self._ids = sequence_ids
        self._ends: dict[int, Finish] = {}
        self._on_finish = on_finish

    @property
    def finished(self) -> bool:
        return len(self._ends) == len(self._ids)

    def feed(self, event: Event) -> None:
        if isinstance(event, Finish):
            self._ends[event.id] = event
            if self.finished:
                self._on_finish()

    def fail(self, error: ErrorInfo) -> None:
        for sequence_id in self._ids:
            if sequence_id not in self._ends:
                self.feed(Finish(sequence_id, "error", Usage(), Timings(), error=error))

    def result(self) -> Embeddings:
        """Vectors in input order. Raises the first error. Requires: finished."""
        ends = [self._ends[sequence_id] for sequence_id in self._ids]
        for end in ends:
            raise_for(end)
            if end.embedding is None:
                raise errors.InferenceFailed("The embedding was cancelled.")
        return Embeddings(
            model=self._request.model,
            vectors=[end.embedding or b"" for end in ends],
            usage=Usage(prompt_tokens=sum(end.usage.prompt_tokens for end in ends)),
        )


class Streams:
    """Sequence id -> consumer. Events that arrive before their consumer is added wait for it."""

    def __init__(self) -> None:
        self._consumers: dict[int, Consumer] = {}
        self._early: dict[int, list[Event]] = {}

    def __len__(self) -> int:
        return len(self._consumers)

    def add(self, consumer: Consumer, sequence_ids: Iterable[int]) -> None:
        for sequence_id in sequence_ids:
            self._consumers[sequence_id] = consumer
            for event in self._early.pop(sequence_id, ()):
                self.feed(event)

    def feed(self, event: Event) -> None:
        consumer = self._consumers.get(event.id)
        if consumer is None:
            self._early.setdefault(event.id, []).append(event)
            return
        consumer.feed(event)
        if isinstance(event, Finish):
            del self._consumers[event.id]

    def fail_all(self, error: ErrorInfo) -> None:
        """End every open sequence: the engine is gone."""
        consumers = {id(consumer): consumer for consumer in self._consumers.values()}
        self._consumers.clear()
        self._early.clear()
        for consumer in consumers.values():
            consumer.fail(error)
