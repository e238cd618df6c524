"""The API document's own dialect: /inference and /inference/stream. Defaults are those of the engine's table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inferno.errors import InfernoError
from inferno.request import Event, Finish, Request, Result, TextPrompt, TokenLogprob, TopLogprob, Usage, new_id
from inferno.server.body import Body
from inferno.server.dialects.base import Frame, finite, refuse_unsupported, sampling, token_text

#: Fields of other dialects that would shape the text.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {"tools": (), "suffix": ()}


def parse(body: Body) -> Request:
    refuse_unsupported(body, _UNSUPPORTED)
    model, prompt = body.text("model"), body.text("prompt")
    if not prompt:
        body.refuse("prompt", "a text that is not empty")
    return Request(model=model, prompts=[TextPrompt(prompt)], sampling=sampling(body, {}), id=new_id("inf"))


def wants_stream(body: Body) -> bool:
    return body.flag("stream")


class NativeRenderer:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._index = 0
        self._finish: Finish | None = None

    def whole(self, result: Result, elapsed_ms: int) -> dict[str, Any]:
        return {
            "id": result.id,
            "model": result.model,
            "choices": render_choices(result),
            "usage": _usage(result.usage),
            "created": result.created,
            "processing_time_ms": elapsed_ms,
        }

    def opening(self) -> Iterator[Frame]:
        return iter(())

    def event(self, index: int, event: Event) -> Iterator[Frame]:
        if isinstance(event, Finish):
            self._finish = event
        elif event.text or event.logprobs:
            yield {"token": event.text, "index": self._index, **_logprobs(event.logprobs)}
            self._index += 1

    def closing(self, elapsed_ms: int) -> Iterator[Frame]:
        assert self._finish is not None, "a request has at least one choice"
        yield {
            "done": True,
            "finish_reason": self._finish.reason,
            "id": self._request.id,
            "usage": _usage(self._finish.usage),
            "processing_time_ms": elapsed_ms,
        }

    def error(self, error: InfernoError) -> Frame:
        return {"error": {"code": error.code, "message": error.message}}


def render_choices(result: Result) -> list[dict[str, Any]]:
    return [
        {
            "text": choice.text,
            "index": choice.index,
            "finish_reason": choice.finish_reason,
            **_logprobs(choice.logprobs),
        }
        for choice in result.choices
    ]


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def _logprobs(tokens: list[TokenLogprob]) -> dict[str, Any]:
    """The key `logprobs` when there are any, else nothing."""
    if not tokens:
        return {}
    return {"logprobs": [{**_token(token), "top": [_token(other) for other in token.top]} for token in tokens]}


def _token(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    return {"token": token_text(token), "id": token.token, "logprob": finite(token.logprob)}
