"""Request -> engine sequences: tokenising, the checks that need the model, and the fan-out of choices."""

from __future__ import annotations

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
    Prompt,
    Request,
    TextPrompt,
)

if TYPE_CHECKING:
    from inferno._core import Engine as CoreEngine


def submit(core: CoreEngine, request: Request) -> list[int]:
    """Accept all sequences of `request`, or none. Returns their ids, prompt-major.

    Raises InvalidRequest (with the field), ContextLengthExceeded, ServiceUnavailable.
    """
    _check_counts(request)
    prompts: list[list[int]] = []
    sampling: list[dict[str, Any]] = []
    for prompt in request.prompts:
        tokens, stops = _tokenize(core, prompt)
        # One position must be left for the first generated token.
        _check_length(tokens, core.context_size - 1, core.context_size, _field(prompt))
        for choice in range(request.n):
            prompts.append(tokens)
            sampling.append(_choice_sampling(request.sampling, stops, choice))
    return core.submit(
        prompts,
        sampling,
        priority=request.priority,
        timeout_s=request.timeout_s,
        cache_salt=request.cache_salt,
    )


def submit_embeddings(core: CoreEngine, request: EmbeddingRequest) -> list[int]:
    """Accept all inputs, or none. Raises like `submit`."""
    if not 1 <= len(request.inputs) <= MAX_INPUTS:
        raise errors.InvalidRequest(f"input must have 1 to {MAX_INPUTS} items.", field="input")
    _check_timeout(request.timeout_s)
    inputs = []
    for index, item in enumerate(request.inputs):
        tokens, _ = _tokenize(core, item)
        field = f"input[{index}]"
        if isinstance(item, TextPrompt) and not item.text:
            raise errors.InvalidRequest(f"{field} must not be empty.", field=field)
        _check_length(tokens, core.context_size, core.context_size, field)
        inputs.append(tokens)
    return core.submit_embeddings(inputs, priority=request.priority, timeout_s=request.timeout_s)


def _check_counts(request: Request) -> None:
    if not 1 <= len(request.prompts) <= MAX_PROMPTS:
        raise errors.InvalidRequest(f"prompt must have 1 to {MAX_PROMPTS} items.", field="prompt")
    if not 1 <= request.n <= MAX_CHOICES:
        raise errors.InvalidRequest(f"n must be at least 1 and at most {MAX_CHOICES}.", field="n")
    _check_timeout(request.timeout_s)


def _check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None and not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise errors.InvalidRequest(
            f"timeout must be greater than 0 and at most {MAX_TIMEOUT_S:g} seconds.", field="timeout"
        )


def _tokenize(core: CoreEngine, prompt: Prompt) -> tuple[list[int], list[str]]:
    if isinstance(prompt, TextPrompt):
        return core.tokenize(prompt.text), []
    if isinstance(prompt, ChatPrompt):
        if len(prompt.messages) > MAX_MESSAGES:
            raise errors.InvalidRequest(f"messages must have at most {MAX_MESSAGES} items.", field="messages")
        return core.render_chat([(message.role, message.content) for message in prompt.messages])
    return prompt.tokens, []


def _field(prompt: Prompt) -> str:
    return "messages" if isinstance(prompt, ChatPrompt) else "prompt"


def _check_length(tokens: list[int], limit: int, context_size: int, field: str) -> None:
    if not tokens:
        raise errors.InvalidRequest(f"{field} must not be empty.", field=field)
    if len(tokens) > limit:
        raise errors.ContextLengthExceeded(
            f"{field} has {len(tokens)} tokens; the context holds {context_size}, of which {limit} may be given.",
            field=field,
            prompt_tokens=len(tokens),
            context_size=context_size,
        )


def _choice_sampling(sampling: dict[str, Any], stops: list[str], choice: int) -> dict[str, Any]:
    result = dict(sampling)
    if stops:
        result["stop"] = [*_as_list(sampling.get("stop")), *stops]
    if choice and sampling.get("seed") is not None:
        result["seed"] = sampling["seed"] + choice
    return result


def _as_list(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or [])
