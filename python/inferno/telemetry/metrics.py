"""Prometheus metrics: what requests were like, and what the engines say of themselves when asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from inferno import errors
from inferno.request import EngineStats, Timings, Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DURATIONS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BETWEEN_TOKENS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
#: The label of requests whose model is none of ours: clients do not choose label values.
_OTHER = "other"

#: EngineStats field -> (metric, help). Fields that end in _total are counters.
_ENGINE_METRICS = {
    "running": ("inferno_engine_running_sequences", "Sequences being generated"),
    "waiting": ("inferno_engine_waiting_sequences", "Sequences waiting for a slot"),
    "parallel": ("inferno_engine_slots", "Sequences that can be generated at once"),
    "kv_tokens_used": ("inferno_engine_kv_tokens_used", "Tokens held in the KV cache"),
    "kv_tokens_total": ("inferno_engine_kv_tokens_capacity", "Tokens the KV cache can hold"),
    "memory_bytes": ("inferno_engine_memory_bytes", "Memory of weights, KV cache and compute buffers"),
    "steps_total": ("inferno_engine_steps", "Batches computed"),
    "rows_total": ("inferno_engine_rows", "Tokens computed; divided by steps, the mean batch size"),
    "prompt_tokens_total": ("inferno_engine_prompt_tokens", "Prompt tokens, cached ones included"),
    "cached_tokens_total": ("inferno_engine_cached_tokens", "Prompt tokens found in the KV cache"),
    "completion_tokens_total": ("inferno_engine_completion_tokens", "Tokens sampled"),
    "preemptions_total": ("inferno_engine_preemptions", "Sequences that had to give up their slot"),
}
_GAUGES = frozenset(name for name in _ENGINE_METRICS if not name.endswith("_total")) | {"kv_tokens_total"}


class Metrics:
    """One server's metrics."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter("inferno_inference_requests", "Total inference requests", ["model"], registry=registry)
        self._failures = Counter(
            "inferno_inference_failures", "Inference requests that failed", ["model", "code"], registry=registry
        )
        self._duration = Histogram(
            "inferno_inference_duration_seconds", "Inference duration", buckets=_DURATIONS, registry=registry
        )
        self._tokens = Counter("inferno_tokens", "Tokens of finished requests", ["model", "kind"], registry=registry)
        self._first_token = Histogram(
            "inferno_time_to_first_token_seconds",
            "From acceptance to the first token",
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self._between_tokens = Histogram(
            "inferno_inter_token_latency_seconds",
            "Mean time between the tokens of one text",
            buckets=_BETWEEN_TOKENS,
            registry=registry,
        )
        self._models: set[str] = set()

    @contextlib.contextmanager
    def inference(self, model: str) -> Iterator[Observation]:
        """Around one request, whatever becomes of it. Only one that succeeds counts in the duration."""
        observation = Observation(self, model)
        began = time.perf_counter()
        try:
            yield observation
        except BaseException as error:
            self._failures.labels(self._label(model), _code(error)).inc()
            raise
        else:
            self._duration.observe(time.perf_counter() - began)
        finally:
            self._requests.labels(self._label(model)).inc()

    def _label(self, model: str) -> str:
        return model if model in self._models else _OTHER

    def know(self, models: Iterable[str]) -> None:
        """These are models of ours: their names may be labels, and their counters begin at 0."""
        for model in models:
            self._models.add(model)
            self._requests.labels(model)

    def count_tokens(self, model: str, usage: Usage) -> None:
        self._tokens.labels(self._label(model), "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(self._label(model), "completion").inc(usage.completion_tokens)

    def observe_latencies(self, timings: Timings, n_tokens: int) -> None:
        """Of one sequence. One that produced nothing has no latencies."""
        if n_tokens > 0:
            self._first_token.observe((timings.queue_ms + timings.prefill_ms) / 1000)
        if n_tokens > 1:
            self._between_tokens.observe(timings.decode_ms / 1000 / (n_tokens - 1))

    def render(self, stats: Mapping[str, EngineStats], loaded: Iterable[str], restarts: Mapping[str, int]) -> bytes:
        """The text exposition format, version 0.0.4."""
        engines = CollectorRegistry()
        engines.register(_EngineCollector(stats, loaded, restarts))
        return generate_latest(self._registry) + generate_latest(engines)


class Observation:
    """What one request tells the metrics while it runs."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model

    def admitted(self) -> None:
        """The model exists and is loaded."""
        self._metrics.know((self._model,))

    def sequence(self, timings: Timings, usage: Usage) -> None:
        self._metrics.observe_latencies(timings, usage.completion_tokens)

    def usage(self, usage: Usage) -> None:
        """Of the whole request."""
        self._metrics.count_tokens(self._model, usage)


def _code(error: BaseException) -> str:
    """The error code, or CLIENT_LEFT for a client that hung up (its request is cancelled) or stopped reading."""
    if isinstance(error, errors.InfernoError):
        return error.code
    return "CLIENT_LEFT" if isinstance(error, asyncio.CancelledError | ConnectionError) else "INTERNAL_ERROR"


class _EngineCollector:
    def __init__(self, stats: Mapping[str, EngineStats], loaded: Iterable[str], restarts: Mapping[str, int]) -> None:
        self._stats = stats
        self._loaded = loaded
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        for field, (name, help_text) in _ENGINE_METRICS.items():
            family = (GaugeMetricFamily if field in _GAUGES else CounterMetricFamily)(name, help_text, labels=["model"])
            for model, stats in self._stats.items():
                family.add_metric([model], float(getattr(stats, field)))
            yield family
        up = GaugeMetricFamily("inferno_model_loaded", "1 for a model that is in memory", labels=["model"])
        for model in self._loaded:
            up.add_metric([model], 1.0)
        yield up
        restarts = CounterMetricFamily("inferno_worker_restarts", "Times a worker was started again", labels=["model"])
        for model, count in self._restarts.items():
            restarts.add_metric([model], float(count))
        yield restarts
