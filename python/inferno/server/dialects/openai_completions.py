"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inferno import errors
from inferno.request import (
    MAX_PROMPTS,
    Delta,
    Finish,
    Prompt,
    Request,
    Result,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
    new_id,
)
from inferno.server.body import Body
from inferno.server.dialects.base import Frame, finite, sampling, token_text
from inferno.server.dialects.openai import (
    DEFAULTS,
    ChunkRenderer,
    StreamOptions,
    parse_n,
    reason_json,
    refuse_unsupported,
    usage_json,
)

_DEFAULT_MAX_TOKENS = 16


def parse(body: Body) -> Request:
    refuse_unsupported(body, "suffix")
    n = parse_n(body)
    if body.integer("best_of", n, 1, 20) != n:
        body.refuse("best_of", "left out or equal to n")
    _check_echo(body)
    return Request(
        model=body.text("model"),
        prompts=_prompts(body),
        sampling=sampling(body, {**DEFAULTS, "max_tokens": _DEFAULT_MAX_TOKENS}),
        n=n,
        id=new_id("cmpl"),
    )


def echo(body: Body) -> bool:
    return body.flag("echo")


def _check_echo(body: Body) -> None:
    if not echo(body):
        return
    if body.has("logprobs"):
        raise errors.InvalidRequest("echo together with logprobs is not supported.", field="echo")
    if not all(isinstance(prompt, TextPrompt) for prompt in _prompts(body)):
        raise errors.InvalidRequest("echo is supported for prompts given as text.", field="echo")


def _prompts(body: Body) -> list[Prompt]:
    value = body.raw("prompt")
    if isinstance(value, str):
        return [_prompt(body, "prompt", value)]
    items = body.items("prompt", 1 << 24)
    if _is_token(items[0]):
        return [_prompt(body, "prompt", items)]
    if len(items) > MAX_PROMPTS:
        body.refuse("prompt", f"a list of at most {MAX_PROMPTS} prompts")
    return [_prompt(body, f"prompt[{index}]", item) for index, item in enumerate(items)]


def _prompt(body: Body, key: str, value: Any) -> Prompt:
    if isinstance(value, str) and value:
        return TextPrompt(value)
    if isinstance(value, list) and value and all(_is_token(item) for item in value):
        return TokenPrompt(value)
    body.refuse(key, "a text that is not empty, or a list of token ids")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class CompletionRenderer(ChunkRenderer):
    object_name = "text_completion"

    def __init__(self, request: Request, stream: StreamOptions, fingerprint: str, echo: bool) -> None:
        super().__init__(request, stream, fingerprint)
        self._echo = echo
        self._offsets: dict[int, int] = {}

    def whole(self, result: Result, elapsed_ms: int) -> dict[str, Any]:
        choices = [
            {
                "text": self._head(choice.index) + choice.text,
                "index": choice.index,
                "logprobs": self._logprobs(choice.index, choice.logprobs),
                "finish_reason": "length" if choice.finish_reason == "length" else "stop",
            }
            for choice in result.choices
        ]
        return {**self.envelope(self.object_name), "choices": choices, "usage": usage_json(result.usage)}

    def opening(self) -> Iterator[Frame]:
        if self._echo:
            for index in range(len(self.request.prompts) * self.request.n):
                yield self.chunk([self._choice(index, self._head(index), None, None)])

    def delta_choice(self, index: int, delta: Delta) -> dict[str, Any]:
        return self._choice(index, delta.text, self._logprobs(index, delta.logprobs), None)

    def final_choice(self, index: int, finish: Finish) -> dict[str, Any]:
        return self._choice(index, "", None, reason_json(finish))

    @staticmethod
    def _choice(index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}

    def _head(self, index: int) -> str:
        prompt = self.request.prompts[index // self.request.n]
        return prompt.text if self._echo and isinstance(prompt, TextPrompt) else ""

    def _logprobs(self, index: int, tokens: list[TokenLogprob]) -> dict[str, Any] | None:
        if self.request.sampling.get("logprobs", -1) < 0:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(token_text(token))
        return {
            "tokens": [token_text(token) for token in tokens],
            "token_logprobs": [finite(token.logprob) for token in tokens],
            "top_logprobs": [{token_text(o): finite(o.logprob) for o in token.top} for token in tokens],
            "text_offset": offsets,
        }
