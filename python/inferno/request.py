"""THE request and what comes back. Every dialect and interface maps onto these types.

A `Request` becomes `len(prompts) * n` sequences in an engine; sequence `i * n + j` is the j-th choice of
prompt i. What comes back is, for each sequence, any number of `Delta` and exactly one `Finish`.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal, TypeAlias

import msgspec

FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "timeout", "error"]

#: Bounds of a request that no sampling field covers. One table for HTTP, WebSocket, batch and Python.
MAX_CHOICES = 8
MAX_PROMPTS = 64
MAX_MESSAGES = 2048
MAX_INPUTS = 2048
MAX_TIMEOUT_S = 86400.0


class TextPrompt(msgspec.Struct, frozen=True, tag="text", array_like=True):
    """Raw text to continue. Spellings of control tokens in it are read as those tokens."""

    text: str

    @property
    def n_characters(self) -> int:
        return len(self.text)


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens", array_like=True):
    """Token ids to continue; nothing is added."""

    tokens: list[int]

    @property
    def n_characters(self) -> int:
        """About as many as the text has."""
        return 4 * len(self.tokens)


class Message(msgspec.Struct, frozen=True, array_like=True):
    role: str
    content: str


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat", array_like=True):
    """Messages, rendered by the model's own chat template. Control tokens in a content stay plain text."""

    messages: list[Message]

    @property
    def n_characters(self) -> int:
        return sum(len(message.content) for message in self.messages)


Prompt: TypeAlias = TextPrompt | TokenPrompt | ChatPrompt


def new_id(prefix: str) -> str:
    """An opaque unique id such as `inf_6f1c...`."""
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One generation request.

    `sampling` holds fields of the engine's sampling table (`inferno._core.sampling_fields()`), already checked
    by `inferno._core.validate_sampling`. Of two requests that wait, the one with the higher `priority` runs first.
    """

    model: str
    prompts: list[Prompt]
    sampling: dict[str, Any] = {}
    n: int = 1
    priority: int = 0
    timeout_s: float | None = None
    id: str = msgspec.field(default_factory=lambda: new_id("inf"))
    created: int = msgspec.field(default_factory=lambda: int(time.time()))
    # Requests with different salts never share cached prefixes.
    cache_salt: int = 0


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs to embed, in order. An input longer than the context is refused, never cut."""

    model: str
    inputs: list[TextPrompt | TokenPrompt]
    priority: int = 0
    timeout_s: float | None = None
    id: str = msgspec.field(default_factory=lambda: new_id("emb"))


class TopLogprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`raw` has the token's bytes, which need not be whole characters."""

    token: int
    logprob: float
    raw: bytes


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Natural log-probability under the raw softmax; `top` has the most likely alternatives, best first."""

    token: int
    logprob: float
    raw: bytes
    top: list[TopLogprob] = []


class Usage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Counts of the model's own tokens. `completion_tokens` includes a closing end-of-text or stop token."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Timings(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Milliseconds: waiting for a slot, computing the prompt, generating."""

    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0


class ErrorInfo(msgspec.Struct, frozen=True, array_like=True):
    """An error as it crosses process borders; `inferno.errors.from_dict` makes the exception."""

    code: str
    message: str


class Delta(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A piece of one sequence: whole characters, never part of a stop string. `id` is the engine's sequence id."""

    id: int
    text: str
    n_tokens: int
    logprobs: list[TokenLogprob] = []


class Finish(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The end of one sequence. `embedding` is little-endian float32, for embedding sequences."""

    id: int
    reason: FinishReason
    usage: Usage
    timings: Timings
    stop_match: str = ""
    error: ErrorInfo | None = None
    embedding: bytes | None = None


Event: TypeAlias = Delta | Finish


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One finished text."""

    index: int
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    logprobs: list[TokenLogprob] = []
    stop_match: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All choices of one Request, in index order. `usage` counts each prompt once, whatever `n` is."""

    id: str
    model: str
    created: int
    choices: list[Choice]
    usage: Usage

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """One L2-normalised vector for each input, as little-endian float32 bytes of equal length."""

    model: str
    vectors: list[bytes]
    usage: Usage


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a GGUF file says about itself, read without loading weights."""

    architecture: str
    name: str
    description: str
    quantization: str
    n_params: int
    size_bytes: int
    context_train: int
    n_vocab: int
    n_embd: int
    n_layer: int
    can_generate: bool
    can_embed: bool
    pooling: str
    chat_template: str
    metadata: dict[str, str] = {}

    @property
    def capabilities(self) -> list[str]:
        names = {"text-generation": self.can_generate, "embeddings": self.can_embed}
        return [name for name, able in names.items() if able]


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a loaded model is: layers on devices (the output counted as one), bytes in the host's memory, and bytes on
    each device by its name. Integrated and software devices have the host's memory."""

    gpu_layers: int = 0
    host_bytes: int = 0
    device_bytes: dict[str, int] = {}


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges and running totals of one engine."""

    running: int = 0
    waiting: int = 0
    parallel: int = 0
    kv_tokens_used: int = 0
    kv_tokens_total: int = 0
    stored_bytes: int = 0
    steps_total: int = 0
    rows_total: int = 0
    prompt_tokens_total: int = 0
    cached_tokens_total: int = 0
    fetched_tokens_total: int = 0
    drafted_tokens_total: int = 0
    accepted_tokens_total: int = 0
    completion_tokens_total: int = 0
    preemptions_total: int = 0
    busy_ms_total: float = 0.0
    memory_bytes: int = 0
    placement: Placement = Placement()

    @property
    def busy_s_total(self) -> float:
        """The same in seconds."""
        return self.busy_ms_total / 1000
