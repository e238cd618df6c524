"""What OpenAI's chat and completions dialects share.

Defaults differ from the native dialect's: clients of this API expect an untouched distribution unless they say
otherwise, so penalties are off and truncation is light.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import msgspec

from inferno import errors
from inferno.engine.generation import total_usage
from inferno.request import MAX_CHOICES, Delta, Event, Finish, FinishReason, Request, Usage, new_id
from inferno.server.body import Body
from inferno.server.dialects.base import Frame
from inferno.server.errors import openai_error

DEFAULTS: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 40,
    "min_p": 0.05,
    "repeat_penalty": 1.0,
}
#: To the end of the context: the engine clamps it.
UNLIMITED_TOKENS = 2_000_000

#: Fields of OpenAI and of servers like it that would change the text, and the values of each that do not.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "reasoning_effort": ("none",),
    "prediction": (),
    # Extensions of other servers, sent with `extra_body`.
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "prompt_logprobs": (),
    "bad_words": (),
    "use_beam_search": (),
    "lora_adapter": (),
}
#: Names that other servers give to sampling fields of ours.
RENAMED = {"repetition_penalty": "repeat_penalty"}


class StreamOptions(msgspec.Struct, frozen=True):
    stream: bool
    include_usage: bool = False


def parse_stream(body: Body) -> StreamOptions:
    """`continuous_usage_stats` is checked and no more: usage is known, and sent, at the end."""
    stream = body.flag("stream")
    options = body.object("stream_options")
    if options is None:
        return StreamOptions(stream)
    if not stream:
        raise errors.InvalidRequest("stream_options needs stream to be true.", field="stream_options")
    options.flag("continuous_usage_stats")
    return StreamOptions(stream, options.flag("include_usage"))


def completion_id(prefix: str) -> str:
    """As in `chatcmpl-6f1c...`."""
    return new_id(prefix).replace("_", "-", 1)


def parse_n(body: Body) -> int:
    return body.integer("n", 1, 1, MAX_CHOICES)


def usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def finish_reason(reason: FinishReason) -> str:
    return "length" if reason == "length" else "stop"


class ChunkRenderer(abc.ABC):
    """The stream of both dialects; subclasses say what is in a choice.

    With include_usage every chunk has a `usage` key, null until the last chunk, which has no choices; without, none.
    """

    object_name: str

    def __init__(self, request: Request, stream: StreamOptions, fingerprint: str) -> None:
        self.request = request
        self._stream = stream
        self._fingerprint = fingerprint
        self._usages: dict[int, Usage] = {}

    def envelope(self, object_name: str) -> dict[str, Any]:
        return {
            "id": self.request.id,
            "object": object_name,
            "created": self.request.created,
            "model": self.request.model,
            "system_fingerprint": self._fingerprint,
        }

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> dict[str, Any]:
        frame = {**self.envelope(self.object_name), "choices": choices}
        if self._stream.include_usage:
            frame["usage"] = usage
        return frame

    def opening(self) -> Iterator[Frame]:
        return iter(())

    def event(self, index: int, event: Event) -> Iterator[Frame]:
        if isinstance(event, Finish):
            self._usages[index] = event.usage
            yield self.chunk([self.final_choice(index, event)])
        elif event.text or event.logprobs:
            yield self.chunk([self.delta_choice(index, event)])

    def closing(self, elapsed_ms: int) -> Iterator[Frame]:
        if self._stream.include_usage:
            usages = [self._usages[index] for index in sorted(self._usages)]
            yield self.chunk([], usage_json(total_usage(usages, self.request.n)))
        yield "[DONE]"

    def error(self, error: errors.InfernoError) -> Frame:
        return {"error": openai_error(error)}

    @abc.abstractmethod
    def delta_choice(self, index: int, delta: Delta) -> dict[str, Any]: ...

    @abc.abstractmethod
    def final_choice(self, index: int, finish: Finish) -> dict[str, Any]: ...
