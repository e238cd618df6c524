"""Request -> engine sequences: tokenising, the checks that need the model, and the fan-out of choices."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from inferno import errors
from inferno.request import (
    MAX_CHOICES,
    MAX_INPUTS,
    MAX_MESSAGES,
    MAX_PROMPTS,
    MAX_TIMEOUT_S,
    ChatPrompt,
    EmbeddingRequest,
    ModelInfo,
    Prompt,
    Request,
    TextPrompt,
    TokenPrompt,
)

if TYPE_CHECKING:
    from inferno._core import Engine as Core


#: Bytes for each token of the context that a text may have where nobody knows the most that a token stands for:
#: vocabularies drop spaces and accents, chat templates whole thoughts. One token of plain English has about four.
_BYTES_A_TOKEN = 256


class Submitter:
    """Puts requests into the queue of one engine. Blocking (a long prompt takes a while to tokenise); thread-safe.

    Both methods raise InvalidRequest with the field, ContextLengthExceeded and ServiceUnavailable (queue full).
    """

    def __init__(self, core: Core, info: ModelInfo) -> None:
        self._core = core
        self._info = info
        self._text_bytes_a_token = core.max_token_bytes or _BYTES_A_TOKEN
        self._chat_bytes_a_token = max(core.max_token_bytes, _BYTES_A_TOKEN)

    def submit(self, request: Request) -> tuple[list[int], int]:
        """Take queue places for all sequences or for none. Returns their ids, prompt by prompt and choice by choice,
        and the tokens of the prompts, each counted once."""
        if not self._info.can_generate:
            raise errors.InvalidRequest("The model does not generate text.", field="model")
        _check_count(len(request.prompts), MAX_PROMPTS, "prompt")
        _check_count(request.n, MAX_CHOICES, "n")
        _check_timeout(request.timeout_s)
        prompts: list[list[int]] = []
        sampling: list[dict[str, Any]] = []
        prompt_tokens = 0
        for prompt in request.prompts:
            tokens, stops = self._tokens(prompt, _field(prompt))
            # One position must be left for the first generated token.
            self._check_length(tokens, self._core.context_size - 1, _field(prompt))
            prompt_tokens += len(tokens)
            prompts += [tokens] * request.n
            sampling += [_choice(request.sampling, stops, j) for j in range(request.n)]
        ids = self._core.submit(
            prompts,
            sampling,
            priority=request.priority,
            timeout_s=request.timeout_s,
            cache_salt=request.cache_salt,
        )
        return ids, prompt_tokens

    def submit_embeddings(self, request: EmbeddingRequest, first: int = 0) -> tuple[list[int], int]:
        """Take queue places for all inputs or for none. Returns their ids, and the tokens of all. `first` is the index
        that errors give the first input."""
        if not self._info.can_embed:
            raise errors.InvalidRequest("The model does not make embeddings.", field="model")
        _check_count(len(request.inputs), MAX_INPUTS, "input")
        _check_timeout(request.timeout_s)
        inputs = []
        for index, item in enumerate(request.inputs, first):
            field = f"input[{index}]"
            if isinstance(item, TextPrompt) and not item.text:
                raise errors.InvalidRequest(f"{field} must not be empty.", field=field)
            tokens, _ = self._tokens(item, field)
            self._check_length(tokens, self._core.context_size, field)
            inputs.append(tokens)
        ids = self._core.submit_embeddings(inputs, priority=request.priority, timeout_s=request.timeout_s)
        return ids, sum(map(len, inputs))

    def _tokens(self, prompt: Prompt, field: str) -> tuple[list[int], list[str]]:
        """(token ids, stop texts)"""
        match prompt:
            case TextPrompt(text):
                self._check_size((text,), self._text_bytes_a_token, field)
                return self._core.tokenize(text, add_special=True, parse_special=True), []
            case TokenPrompt(tokens):
                self._check_ids(tokens, field)
                return tokens, []
            case ChatPrompt(messages):
                _check_count(len(messages), MAX_MESSAGES, field)
                parts = (part for message in messages for part in (message.role, message.content))
                self._check_size(parts, self._chat_bytes_a_token, field)
                return self._core.render_chat([(message.role, message.content) for message in messages])

    def _check_ids(self, tokens: list[int], field: str) -> None:
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._info.n_vocab:
            raise errors.InvalidRequest(f"{field} has a token id outside the vocabulary.", field=field)

    def _check_size(self, texts: Iterable[str], bytes_a_token: int, field: str) -> None:
        """What cannot fit is not tokenised to find that out: that takes seconds for each megabyte."""
        size = _utf8_size(texts, field)
        least = -(-size // bytes_a_token)
        if least > self._core.context_size:
            raise self._too_long(f"{size} bytes", f"{self._core.context_size} tokens", least, field)

    def _check_length(self, tokens: list[int], limit: int, field: str) -> None:
        if not tokens:
            raise errors.InvalidRequest(f"{field} must not be empty.", field=field)
        if len(tokens) > limit:
            raise self._too_long(f"{len(tokens)} tokens", str(self._core.context_size), len(tokens), field)

    def _too_long(self, has: str, holds: str, prompt_tokens: int, field: str) -> errors.ContextLengthExceeded:
        subject = "input" if field.startswith("input") else "prompt"
        return errors.ContextLengthExceeded(
            f"The {subject} has {has} but the context holds {holds}.",
            field=field,
            prompt_tokens=prompt_tokens,
            context_size=self._core.context_size,
        )


def _field(prompt: Prompt) -> str:
    return "messages" if isinstance(prompt, ChatPrompt) else "prompt"


def _check_count(count: int, most: int, field: str) -> None:
    if not 1 <= count <= most:
        kind = "must be" if field == "n" else "must have"
        raise errors.InvalidRequest(f"{field} {kind} at least 1 and at most {most}, not {count}.", field=field)


def _check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise errors.InvalidRequest(
            f"timeout must be greater than 0 and at most {MAX_TIMEOUT_S:g} seconds.", field="timeout"
        )


def _utf8_size(texts: Iterable[str], field: str) -> int:
    try:
        return sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8 form
        raise errors.InvalidRequest(f"{field} must be valid Unicode text.", field=field) from None


def _choice(sampling: dict[str, Any], stops: list[str], index: int) -> dict[str, Any]:
    """The sampling of one choice: its own seed, and the stop texts that the chat template asks for."""
    result = dict(sampling)
    if stops:
        result["stop"] = [*_as_list(sampling.get("stop")), *stops]
    if sampling.get("seed") is not None:
        result["seed"] = _seed(sampling["seed"], index)
    return result


def _seed(first: int, index: int) -> int:
    """After the last seed comes the first one."""
    seeds = _seeds()
    return seeds[(first - seeds.start + index) % len(seeds)]


@functools.cache
def _seeds() -> range:
    """All there are. The engine's table is imported when first needed, as the engine is."""
    from inferno import _core

    row = next(row for row in _core.sampling_fields() if row["name"] == "seed")
    return range(int(row["min"]), int(row["max"]) + 1)


def _as_list(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or [])
