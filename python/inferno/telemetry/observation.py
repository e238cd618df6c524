"""What one inference tells metrics and traces, however it was asked for: over HTTP, a socket or in a batch."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TypeAlias

from opentelemetry.util.types import AttributeValue

from inferno import errors
from inferno.request import ChatPrompt, EmbeddingRequest, FinishReason, Request, Timings, Usage
from inferno.telemetry.metrics import Metrics
from inferno.telemetry.origin import Origin
from inferno.telemetry.traces import Traces

Attributes: TypeAlias = dict[str, AttributeValue]

#: Sampling field -> attribute. Names: https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/
#: Fields that hold text (stop strings, grammars) are left out on purpose.
_SAMPLING = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
#: A request has up to 512 choices; a span needs no more reasons than this.
_MAX_REASONS = 16


class Observation:
    """A context around one inference, whatever becomes of it. Durations are of those that succeed, and durations and
    latencies of those that somebody waits for: items of a batch wait for all others.

    Holds counts, names and times; never a prompt, a text or a key.
    """

    def __init__(self, metrics: Metrics, traces: Traces, request: Request | EmbeddingRequest, origin: Origin) -> None:
        self._metrics = metrics
        self._traces = traces
        self._request = request
        self._origin = origin
        self._reasons: list[FinishReason] = []
        self._timings: Timings | None = None
        self._usage: Usage | None = None

    def __enter__(self) -> Observation:
        self._began_ns = time.time_ns()
        self._began = time.perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        elapsed_ns = time.perf_counter_ns() - self._began
        code = None if error is None else _code(error)
        model = self._metrics.label(self._request.model)
        self._metrics.count_inference(model, elapsed_ns / 1e9 if self._origin.awaited else None, code)
        times = (self._began_ns, self._began_ns + elapsed_ns)
        self._traces.record(f"inference.{model}", self._origin, times, self._attributes(model), code)

    @property
    def answered(self) -> Usage | None:
        """What the whole request used, once it is complete."""
        return self._usage

    def admitted(self) -> None:
        """The model exists and is loaded."""
        self._metrics.know((self._request.model,))

    def sequence(self, timings: Timings, usage: Usage, reason: FinishReason) -> None:
        """One of the texts is complete."""
        if self._origin.awaited:
            self._metrics.observe_latencies(timings, usage.completion_tokens)
        self._timings = self._timings or timings
        if len(self._reasons) < _MAX_REASONS:
            self._reasons.append(reason)

    def usage(self, usage: Usage) -> None:
        """Of the whole request."""
        self._metrics.count_tokens(self._request.model, usage)
        self._usage = usage

    def _attributes(self, model: str) -> Attributes:
        request = self._request
        return {
            "gen_ai.provider.name": "inferno",
            "gen_ai.request.model": model,
            "gen_ai.response.id": request.id,
            "inferno.request_id": self._origin.request_id,
            **(_of_text(request) if isinstance(request, Request) else _EMBEDDINGS),
            **self._of_answer(),
        }

    def _of_answer(self) -> Attributes:
        found: Attributes = {}
        if self._usage is not None:
            found["gen_ai.usage.input_tokens"] = self._usage.prompt_tokens
            found["gen_ai.usage.output_tokens"] = self._usage.completion_tokens
            found["gen_ai.usage.cache_read.input_tokens"] = self._usage.cached_tokens
        if self._reasons:
            found["gen_ai.response.finish_reasons"] = tuple(self._reasons)
        if self._timings is not None:
            found["inferno.queue_ms"] = self._timings.queue_ms
            found["inferno.prefill_ms"] = self._timings.prefill_ms
            found["inferno.decode_ms"] = self._timings.decode_ms
        return found


_EMBEDDINGS: Attributes = {"gen_ai.operation.name": "embeddings"}


def _of_text(request: Request) -> Attributes:
    is_chat = any(isinstance(prompt, ChatPrompt) for prompt in request.prompts)
    found: Attributes = {
        "gen_ai.operation.name": "chat" if is_chat else "text_completion",
    }
    if request.n > 1:
        found["gen_ai.request.choice.count"] = request.n
    for field, name in _SAMPLING.items():
        if (value := request.sampling.get(field)) is not None:
            # The engine's numbers are 32-bit floats: 0.7 would read 0.699999988.
            found[name] = round(value, 6) if isinstance(value, float) else value
    return found


def _code(error: BaseException) -> str:
    """The error code, or CLIENT_LEFT for a client that hung up (its request is cancelled) or stopped reading."""
    if isinstance(error, errors.InfernoError):
        return error.code
    return "CLIENT_LEFT" if isinstance(error, asyncio.CancelledError | ConnectionError) else "INTERNAL_ERROR"
