"""What all dialects share: the sampling fields, the shape of a renderer, log-probabilities as JSON numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from inferno import _core, errors
from inferno.errors import InfernoError
from inferno.request import Event, Result, TokenLogprob, TopLogprob
from inferno.server.body import Body
from inferno.server.dialects import response_format

#: Names of all sampling fields, from the engine's table.
SAMPLING_FIELDS = frozenset(row["name"] for row in _core.sampling_fields())

Frame: TypeAlias = Mapping[str, Any] | str


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


def sampling(
    body: Body,
    defaults: Mapping[str, Any],
    renamed: Mapping[str, str] | None = None,
    instead: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The checked sampling fields of a body, over a dialect's `defaults`.

    `renamed` maps the dialect's names to ours and wins over ours. `instead` has fields of ours that the dialect
    spells in its own way: they are not read from the body; None is not given. A `response_format` becomes a
    `json_schema`. Raises InvalidRequest naming the field as the client wrote it.
    """
    instead = instead or {}
    written = {ours: theirs for theirs, ours in (renamed or {}).items() if body.has(theirs)}
    fields = {**defaults, **body.only(SAMPLING_FIELDS - instead.keys())}
    fields |= {ours: body.raw(theirs) for ours, theirs in written.items()}
    fields |= {name: value for name, value in instead.items() if value is not None}
    if (wanted := response_format.parse(body)) is not None:
        fields["json_schema"] = wanted.schema
        written["json_schema"] = wanted.path
    try:
        return _core.validate_sampling(fields)
    except errors.InvalidRequest as error:
        ours, inside = _split(error.field or "")
        if ours not in written:
            raise
        theirs = written[ours]
        raise errors.InvalidRequest(error.message.replace(ours, theirs, 1), field=theirs + inside) from None


def _split(field: str) -> tuple[str, str]:
    """A sampling field, and the path inside it."""
    name = re.split(r"[.\[]", field, maxsplit=1)[0]
    return name, field.removeprefix(name)


def refuse_unsupported(body: Body, unsupported: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse fields that would change the answer; ignoring them would be a lie. `unsupported` maps a field to the
    values that ask for nothing; empty and false ones never do. Raises InvalidRequest."""
    for key, harmless in unsupported.items():
        value = body.raw(key)
        if value and value not in harmless:
            raise errors.InvalidRequest(f"{body.name(key)} is not supported yet.", field=body.name(key))


def finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI's clients know this value for it."""
    return logprob if math.isfinite(logprob) else -9999.0


def token_text(token: TokenLogprob | TopLogprob) -> str:
    """The token's text; bytes that are no whole character become U+FFFD."""
    return token.raw.decode("utf-8", "replace")


def is_token_list(value: Any) -> bool:
    """True for a list of one token id or more; whether the model has them is the engine's business."""
    if not isinstance(value, list) or not value:
        return False
    return all(type(item) is int and 0 <= item < 1 << 31 for item in value)
