"""Long lists of inputs, taken through the engine's queue a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from inferno import errors
from inferno.request import EmbeddingRequest, Embeddings, Usage

#: Inputs that ask for queue places at once. Small beside any queue, large enough to fill many steps.
PART = 128


def parts(request: EmbeddingRequest) -> Iterator[tuple[int, EmbeddingRequest]]:
    """(index of the first input, request for at most PART inputs)"""
    if not request.inputs:
        raise errors.InvalidRequest("input must not be empty.", field="input")
    for first in range(0, len(request.inputs), PART):
        yield first, msgspec.structs.replace(request, inputs=request.inputs[first : first + PART])


def joined(model: str, done: Sequence[Embeddings]) -> Embeddings:
    return Embeddings(
        model=model,
        vectors=[vector for part in done for vector in part.vectors],
        usage=Usage(prompt_tokens=sum(part.usage.prompt_tokens for part in done)),
    )
