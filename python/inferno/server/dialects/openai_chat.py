"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
    new_id,
)
from inferno.server.body import Body
from inferno.server.dialects.base import Frame, finite, sampling, token_text
from inferno.server.dialects.openai import (
    DEFAULTS,
    UNLIMITED_TOKENS,
    ChunkRenderer,
    not_supported,
    parse_n,
    reason_json,
    refuse_unsupported,
    usage_json,
)

_ROLES = ("system", "developer", "user", "assistant", "tool")


def parse(body: Body) -> Request:
    refuse_unsupported(body, "tools", "functions", "function_call", "audio", "prediction", "web_search_options")
    if body.raw("tool_choice") not in (None, "none", "auto"):
        not_supported(body, "tool_choice")
    if body.raw("modalities") not in (None, ["text"]):
        not_supported(body, "modalities")
    response_format = body.object("response_format")
    if response_format is not None and response_format.text("type") != "text":
        not_supported(body, "response_format")
    defaults = {**DEFAULTS, "max_tokens": UNLIMITED_TOKENS}
    renamed = {"max_completion_tokens": "max_tokens"}
    return Request(
        model=body.text("model"),
        prompts=[ChatPrompt(_messages(body))],
        sampling=sampling(_with_logprobs(body), defaults, renamed),
        n=parse_n(body),
        id=new_id("chatcmpl"),
    )


def _with_logprobs(body: Body) -> Body:
    """This dialect asks with `logprobs: true` and `top_logprobs: N`; ours is the number."""
    fields = {key: body.raw(key) for key in body.names if key not in ("logprobs", "top_logprobs")}
    wanted = body.flag("logprobs")
    top = body.integer("top_logprobs", 0, 0, 20)
    if body.has("top_logprobs") and not wanted:
        body.refuse("top_logprobs", "left out unless logprobs is true")
    return Body({**fields, "logprobs": top} if wanted else fields)


def _messages(body: Body) -> list[Message]:
    return [_message(Body(item, f"messages[{i}]")) for i, item in enumerate(body.items("messages", MAX_MESSAGES))]


def _message(item: Body) -> Message:
    role = item.text("role")
    if role not in _ROLES:
        item.refuse("role", ", ".join(_ROLES[:-1]) + " or " + _ROLES[-1])
    if item.raw("tool_calls"):
        not_supported(item, "tool_calls")
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
    if kind not in ("text", "input_text"):
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
                "finish_reason": "length" if choice.finish_reason == "length" else "stop",
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
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": reason_json(finish)}

    def _logprobs(self, tokens: list[TokenLogprob]) -> dict[str, Any] | None:
        if self.request.sampling.get("logprobs", -1) < 0:
            return None
        content = [{**_token(token), "top_logprobs": [_token(other) for other in token.top]} for token in tokens]
        return {"content": content, "refusal": None}


def _token(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    return {"token": token_text(token), "logprob": finite(token.logprob), "bytes": list(token.raw)}
