"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inferno import _core
from inferno.request import (
    MAX_MESSAGES,
    ChatPrompt,
    Delta,
    Finish,
    Message,
    Request,
    Result,
    TokenLogprob,
    TopLogprob,
)
from inferno.server.body import Body
from inferno.server.dialects.base import Frame, finite, refuse_unsupported, sampling, token_text
from inferno.server.dialects.openai import (
    DEFAULTS,
    RENAMED,
    UNLIMITED_TOKENS,
    UNSUPPORTED,
    ChunkRenderer,
    completion_id,
    finish_reason,
    parse_n,
    usage_json,
)

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_PARTS = ("text", "input_text")
MAX_TOP_LOGPROBS = next(int(row["max"]) for row in _core.sampling_fields() if row["name"] == "logprobs")

_UNSUPPORTED = {
    **UNSUPPORTED,
    "tools": (),
    "tool_choice": ("none",),
    "functions": (),
    "function_call": ("none",),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "verbosity": ("medium",),
    "chat_template": (),
    "chat_template_kwargs": (),
    "continue_final_message": (),
}
_UNSUPPORTED_IN_MESSAGE: dict[str, tuple[Any, ...]] = {"tool_calls": (), "function_call": (), "audio": ()}
_RENAMED = {**RENAMED, "max_completion_tokens": "max_tokens"}


def parse(body: Body) -> Request:
    refuse_unsupported(body, _UNSUPPORTED)
    return Request(
        model=body.text("model"),
        prompts=[ChatPrompt(_messages(body))],
        sampling=sampling(body, {**DEFAULTS, "max_tokens": UNLIMITED_TOKENS}, _RENAMED, {"logprobs": _logprobs(body)}),
        n=parse_n(body),
        id=completion_id("chatcmpl"),
    )


def _logprobs(body: Body) -> int | None:
    """This dialect asks with `logprobs: true` and `top_logprobs: N`; ours is the number."""
    wanted, top = body.flag("logprobs"), body.integer("top_logprobs", 0, 0, MAX_TOP_LOGPROBS)
    if body.has("top_logprobs") and not wanted:
        body.refuse("top_logprobs", "left out unless logprobs is true")
    return top if wanted else None


def _messages(body: Body) -> list[Message]:
    return [_message(Body(item, f"messages[{i}]")) for i, item in enumerate(body.items("messages", MAX_MESSAGES))]


def _message(item: Body) -> Message:
    role = item.text("role")
    if role not in ROLES:
        item.refuse("role", ", ".join(ROLES[:-1]) + " or " + ROLES[-1])
    refuse_unsupported(item, _UNSUPPORTED_IN_MESSAGE)
    return Message(role, _content(item, role))


def _content(item: Body, role: str) -> str:
    value = item.raw("content")
    if isinstance(value, list):
        return "".join(_part(Body(part, f"{item.name('content')}[{i}]")) for i, part in enumerate(value))
    if value is None and role == "assistant":
        return ""
    return item.text("content")


def _part(part: Body) -> str:
    kind = part.text("type")
    if kind not in TEXT_PARTS:
        part.refuse("type", "text")
    return part.text("text")


class ChatRenderer(ChunkRenderer):
    object_name = "chat.completion.chunk"

    def whole(self, result: Result, elapsed_ms: int) -> dict[str, Any]:
        choices = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": self._logprobs(choice.logprobs),
                "finish_reason": finish_reason(choice.finish_reason),
            }
            for choice in result.choices
        ]
        return {**self.envelope("chat.completion"), "choices": choices, "usage": usage_json(result.usage)}

    def opening(self) -> Iterator[Frame]:
        for index in range(self.request.n):
            delta = {"role": "assistant", "content": ""}
            yield self.chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def delta_choice(self, index: int, delta: Delta) -> dict[str, Any]:
        return {
            "index": index,
            "delta": {"content": delta.text},
            "logprobs": self._logprobs(delta.logprobs),
            "finish_reason": None,
        }

    def final_choice(self, index: int, finish: Finish) -> dict[str, Any]:
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": finish_reason(finish.reason)}

    def _logprobs(self, tokens: list[TokenLogprob]) -> dict[str, Any] | None:
        if self.request.sampling.get("logprobs", -1) < 0:
            return None
        content = [{**_token(token), "top_logprobs": [_token(other) for other in token.top]} for token in tokens]
        return {"content": content, "refusal": None}


def _token(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    return {"token": token_text(token), "logprob": finite(token.logprob), "bytes": list(token.raw)}
