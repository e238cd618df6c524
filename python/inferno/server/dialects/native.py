"""The API document's own dialect: /inference, /inference/stream, /embeddings."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np

from inferno.errors import InfernoError
from inferno.request import (
    MAX_INPUTS,
    Delta,
    EmbeddingRequest,
    Embeddings,
    Event,
    Finish,
    Request,
    Result,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
    Usage,
    new_id,
)
from inferno.server.body import Body
from inferno.server.dialects.base import Frame, finite, sampling, token_text


def parse(body: Body) -> Request:
    model = body.text("model")
    prompt = body.text("prompt")
    if not prompt:
        body.refuse("prompt", "a text that is not empty")
    return Request(model=model, prompts=[TextPrompt(prompt)], sampling=sampling(body, {}), id=new_id("inf"))


def wants_stream(body: Body) -> bool:
    return body.flag("stream")


def usage_json(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def logprobs_json(tokens: list[TokenLogprob]) -> list[dict[str, Any]]:
    return [
        {
            "token": token_text(token),
            "id": token.token,
            "logprob": finite(token.logprob),
            "top": [
                {"token": token_text(other), "id": other.token, "logprob": finite(other.logprob)} for other in token.top
            ],
        }
        for token in tokens
    ]


class NativeRenderer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._index = 0
        self._finish: Finish | None = None

    def whole(self, result: Result, elapsed_ms: int) -> dict[str, Any]:
        choices = []
        for choice in result.choices:
            item: dict[str, Any] = {
                "text": choice.text,
                "index": choice.index,
                "finish_reason": choice.finish_reason,
            }
            if choice.logprobs:
                item["logprobs"] = logprobs_json(choice.logprobs)
            choices.append(item)
        return {
            "id": result.id,
            "model": result.model,
            "choices": choices,
            "usage": usage_json(result.usage),
            "created": result.created,
            "processing_time_ms": elapsed_ms,
        }

    def opening(self) -> Iterator[Frame]:
        return iter(())

    def event(self, index: int, event: Event) -> Iterator[Frame]:
        if isinstance(event, Finish):
            self._finish = event
        elif isinstance(event, Delta) and event.text:
            frame: dict[str, Any] = {"token": event.text, "index": self._index}
            if event.logprobs:
                frame["logprobs"] = logprobs_json(event.logprobs)
            self._index += 1
            yield frame

    def closing(self, elapsed_ms: int) -> Iterator[Frame]:
        assert self._finish is not None
        yield {
            "done": True,
            "finish_reason": self._finish.reason,
            "id": self._request.id,
            "usage": usage_json(self._finish.usage),
            "processing_time_ms": elapsed_ms,
        }

    def error(self, error: InfernoError) -> Frame:
        return {"error": {"code": error.code, "message": error.message}}


# ---- embeddings, the same on /embeddings and /v1/embeddings ----


def parse_embeddings(body: Body) -> tuple[EmbeddingRequest, str, int | None]:
    """The request, the encoding format, and the number of dimensions asked for."""
    model = body.text("model")
    encoding = body.text("encoding_format", "float")
    if encoding not in ("float", "base64"):
        body.refuse("encoding_format", "float or base64")
    dimensions = body.integer("dimensions", 0, 1, 1 << 20) if body.has("dimensions") else None
    return EmbeddingRequest(model=model, inputs=_inputs(body)), encoding, dimensions


def _inputs(body: Body) -> list[TextPrompt | TokenPrompt]:
    value = body.raw("input")
    if isinstance(value, str):
        return [_text_input(body, "input", value)]
    items = body.items("input", MAX_INPUTS)
    if _is_token_list(items):
        return [TokenPrompt(items)]
    inputs: list[TextPrompt | TokenPrompt] = []
    for index, item in enumerate(items):
        if isinstance(item, list) and item and _is_token_list(item):
            inputs.append(TokenPrompt(item))
        else:
            inputs.append(_text_input(body, f"input[{index}]", item))
    return inputs


def _text_input(body: Body, key: str, value: Any) -> TextPrompt:
    if not isinstance(value, str) or not value:
        body.refuse(key, "a text that is not empty, or a list of token ids")
    return TextPrompt(value)


def _is_token_list(items: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in items)


def embeddings_json(embeddings: Embeddings, encoding: str, dimensions: int | None) -> dict[str, Any]:
    return {
        "object": "list",
        "model": embeddings.model,
        "data": [
            {"object": "embedding", "embedding": _vector(vector, encoding, dimensions), "index": index}
            for index, vector in enumerate(embeddings.vectors)
        ],
        "usage": {
            "prompt_tokens": embeddings.usage.prompt_tokens,
            "total_tokens": embeddings.usage.prompt_tokens,
        },
    }


def _vector(raw: bytes, encoding: str, dimensions: int | None) -> list[float] | str:
    values = np.frombuffer(raw, dtype="<f4")
    if dimensions is not None and dimensions < len(values):
        # Cut and made a unit vector again, as for models trained with nested dimensions.
        values = values[:dimensions] / max(float(np.linalg.norm(values[:dimensions])), 1e-12)
    if encoding == "base64":
        return base64.b64encode(values.astype("<f4").tobytes()).decode()
    floats: list[float] = values.tolist()
    return floats
