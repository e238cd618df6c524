"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from inferno import errors
from inferno.request import (
    MAX_PROMPTS,
    Delta,
    Event,
    Finish,
    Prompt,
    Request,
    Result,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
    Usage,
)
from inferno.server.body import Body
from inferno.server.dialects.base import Frame, finite, is_token_list, refuse_unsupported, sampling, token_text
from inferno.server.dialects.openai import (
    DEFAULTS,
    RENAMED,
    UNSUPPORTED,
    ChunkRenderer,
    StreamOptions,
    completion_id,
    finish_reason,
    parse_n,
    usage_json,
)

DEFAULT_MAX_TOKENS = 16
_UNSUPPORTED = {**UNSUPPORTED, "suffix": ()}


def parse(body: Body) -> Request:
    refuse_unsupported(body, _UNSUPPORTED)
    n = parse_n(body)
    if body.has("best_of") and body.raw("best_of") != n:
        body.refuse("best_of", "left out or equal to n")
    prompts = _prompts(body)
    _check_echo(body, prompts)
    return Request(
        model=body.text("model"),
        prompts=prompts,
        sampling=sampling(
            body,
            {**DEFAULTS, "max_tokens": DEFAULT_MAX_TOKENS},
            RENAMED,
            instead={"max_tokens": 1} if only_echoes(body) else None,  # the engine makes one token at least
        ),
        n=n,
        id=completion_id("cmpl"),
    )


def wants_echo(body: Body) -> bool:
    """True when the answer begins with the prompt."""
    return body.flag("echo")


def only_echoes(body: Body) -> bool:
    """True when the prompt is all of the answer."""
    value = body.raw("max_tokens")
    return wants_echo(body) and value == 0 and value is not False


def _check_echo(body: Body, prompts: list[Prompt]) -> None:
    if not wants_echo(body):
        return
    if body.has("logprobs"):
        raise errors.InvalidRequest("echo together with logprobs is not supported yet.", field="echo")
    if not all(isinstance(prompt, TextPrompt) for prompt in prompts):
        raise errors.InvalidRequest("echo is supported for prompts given as text.", field="echo")


def _prompts(body: Body) -> list[Prompt]:
    """A text, a list of token ids, or a list of texts and such lists."""
    value = body.raw("prompt")
    if isinstance(value, str) or is_token_list(value):
        return [_prompt(body, "prompt", value)]
    items = body.items("prompt", MAX_PROMPTS)
    return [_prompt(body, f"prompt[{index}]", item) for index, item in enumerate(items)]


def _prompt(body: Body, key: str, value: Any) -> Prompt:
    if isinstance(value, str) and value:
        return TextPrompt(value)
    if is_token_list(value):
        return TokenPrompt(value)
    body.refuse(key, "a text that is not empty, or a list of token ids")


class CompletionRenderer(ChunkRenderer):
    object_name = "text_completion"

    def __init__(
        self, request: Request, stream: StreamOptions, fingerprint: str, echo: bool, only_echo: bool = False
    ) -> None:
        super().__init__(request, stream, fingerprint)
        self._echo = echo
        self._only_echo = only_echo
        self._offsets: dict[int, int] = {}

    def whole(self, result: Result, elapsed_ms: int) -> dict[str, Any]:
        if self._only_echo:
            bare = [msgspec.structs.replace(choice, text="", finish_reason="length") for choice in result.choices]
            result = msgspec.structs.replace(result, choices=bare, usage=_of_prompt(result.usage))
        choices = [
            {
                "text": self._head(choice.index) + choice.text,
                "index": choice.index,
                "logprobs": self._logprobs(choice.index, choice.logprobs),
                "finish_reason": finish_reason(choice.finish_reason),
            }
            for choice in result.choices
        ]
        return {**self.envelope(self.object_name), "choices": choices, "usage": usage_json(result.usage)}

    def opening(self) -> Iterator[Frame]:
        if self._echo:
            for index in range(len(self.request.prompts) * self.request.n):
                yield self.chunk([self._choice(index, self._head(index), None, None)])

    def event(self, index: int, event: Event) -> Iterator[Frame]:
        if self._only_echo:
            if isinstance(event, Delta):
                return
            event = msgspec.structs.replace(event, reason="length", usage=_of_prompt(event.usage))
        yield from super().event(index, event)

    def delta_choice(self, index: int, delta: Delta) -> dict[str, Any]:
        return self._choice(index, delta.text, self._logprobs(index, delta.logprobs), None)

    def final_choice(self, index: int, finish: Finish) -> dict[str, Any]:
        return self._choice(index, "", None, finish_reason(finish.reason))

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


def _of_prompt(usage: Usage) -> Usage:
    return msgspec.structs.replace(usage, completion_tokens=0)
