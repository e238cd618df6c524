"""What all dialects share: the sampling fields, and the shape of a renderer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from inferno import _core
from inferno.errors import InfernoError
from inferno.request import Event, Result, TokenLogprob, TopLogprob
from inferno.server.body import Body

#: Names of all sampling fields, from the engine's table.
SAMPLING_FIELDS = frozenset(row["name"] for row in _core.sampling_fields())

Frame = Mapping[str, Any] | str


class Renderer(Protocol):
    """Turns what an engine gives into one dialect's JSON."""

    def whole(self, result: Result, elapsed_ms: int) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def opening(self) -> Iterator[Frame]:
        """Frames before the first token."""
        ...

    def event(self, index: int, event: Event) -> Iterator[Frame]:
        """Frames of one event of choice `index`. Never called with an event that ends in an error."""
        ...

    def closing(self, elapsed_ms: int) -> Iterator[Frame]:
        """Frames after every choice has ended."""
        ...

    def error(self, error: InfernoError) -> Frame:
        """The frame that reports an error once a stream has begun."""
        ...


def sampling(body: Body, defaults: Mapping[str, Any], renamed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The checked sampling fields of a body over a dialect's `defaults`; `renamed` maps its names to ours.

    Raises InvalidRequest naming the field as the engine's table does.
    """
    given = body.only(SAMPLING_FIELDS)
    for theirs, ours in (renamed or {}).items():
        if body.has(theirs):
            given[ours] = body.raw(theirs)
    return _core.validate_sampling({**defaults, **given})


def finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI's clients know this value for it."""
    return logprob if math.isfinite(logprob) else -9999.0


def token_text(token: TokenLogprob | TopLogprob) -> str:
    return token.raw.decode("utf-8", "replace")
