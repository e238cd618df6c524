"""Embeddings: OpenAI's shape, of which the API document's is a part, for both routes."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import msgspec

from inferno.request import MAX_INPUTS, EmbeddingRequest, Embeddings, TextPrompt, TokenPrompt
from inferno.server.body import Body
from inferno.server.dialects.base import is_token_list

_MAX_DIMENSIONS = 1 << 20


class Query(msgspec.Struct, frozen=True):
    """A request and how its vectors are to be written. `dimensions` 0 keeps them whole."""

    request: EmbeddingRequest
    encoding: str
    dimensions: int
    body: Body

    def check_dimensions(self, available: int) -> None:
        """Raises InvalidRequest when more are wanted than the model has."""
        if self.dimensions > available:
            self.body.refuse("dimensions", f"at most {available}")


def parse(body: Body) -> Query:
    encoding = body.text("encoding_format", "float")
    if encoding not in ("float", "base64"):
        body.refuse("encoding_format", "float or base64")
    dimensions = body.integer("dimensions", 0, 1, _MAX_DIMENSIONS)
    return Query(EmbeddingRequest(model=body.text("model"), inputs=_inputs(body)), encoding, dimensions, body)


def _inputs(body: Body) -> list[TextPrompt | TokenPrompt]:
    """A text, a list of texts, a list of token ids, or a list of such lists."""
    value = body.raw("input")
    if isinstance(value, str):
        return [_input(body, "input", value)]
    items = body.items("input", MAX_INPUTS)
    if is_token_list(items):
        return [TokenPrompt(items)]
    return [_input(body, f"input[{index}]", item) for index, item in enumerate(items)]


def _input(body: Body, key: str, value: Any) -> TextPrompt | TokenPrompt:
    if isinstance(value, str) and value:
        return TextPrompt(value)
    if is_token_list(value):
        return TokenPrompt(value)
    body.refuse(key, "a text that is not empty, or a list of token ids")


def render(embeddings: Embeddings, query: Query) -> dict[str, Any]:
    return {
        "object": "list",
        "model": embeddings.model,
        "data": [
            {"object": "embedding", "embedding": _vector(vector, query), "index": index}
            for index, vector in enumerate(embeddings.vectors)
        ],
        "usage": {
            "prompt_tokens": embeddings.usage.prompt_tokens,
            "total_tokens": embeddings.usage.prompt_tokens,
        },
    }


def _vector(raw: bytes, query: Query) -> list[float] | str:
    if 0 < 4 * query.dimensions < len(raw):
        raw = _shortened(raw, query.dimensions)
    if query.encoding == "base64":
        return base64.b64encode(raw).decode()
    return list(_floats(raw))


def _shortened(raw: bytes, dimensions: int) -> bytes:
    """Cut and made a unit vector again, as for models trained with nested dimensions."""
    values = _floats(raw[: 4 * dimensions])
    length = max(math.hypot(*values), 1e-12)
    return struct.pack(f"<{dimensions}f", *(value / length for value in values))


def _floats(raw: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(raw) // 4}f", raw)
