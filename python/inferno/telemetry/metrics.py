"""Prometheus metrics: what requests were like, and what the engines say of themselves when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferno.request import EngineStats, Timings, Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DURATIONS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BETWEEN_TOKENS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
#: The label of requests whose model is none of ours: clients do not choose label values.
OTHER = "other"

#: EngineStats field -> (metric, help). Fields that end in _total are counters.
_ENGINE_METRICS = {
    "running": ("inferno_engine_running_sequences", "Sequences being generated"),
    "waiting": ("inferno_engine_waiting_sequences", "Sequences waiting for a slot"),
    "parallel": ("inferno_engine_slots", "Sequences that can be generated at once"),
    "kv_tokens_used": ("inferno_engine_kv_tokens_used", "Tokens held in the KV cache"),
    "kv_tokens_total": ("inferno_engine_kv_tokens_capacity", "Tokens the KV cache can hold"),
    "stored_bytes": ("inferno_engine_stored_bytes", "Memory of prefixes that have lost their place in the KV cache"),
    "memory_bytes": (
        "inferno_engine_memory_bytes",
        "Memory of weights, KV cache and compute buffers, and of stored prefixes at most",
    ),
    "steps_total": ("inferno_engine_steps", "Batches computed"),
    "rows_total": ("inferno_engine_rows", "Tokens computed; divided by steps, the mean batch size"),
    "prompt_tokens_total": ("inferno_engine_prompt_tokens", "Prompt tokens, cached ones included"),
    "cached_tokens_total": ("inferno_engine_cached_tokens", "Prompt tokens that were not computed again"),
    "fetched_tokens_total": ("inferno_engine_fetched_tokens", "Of those, how many were stored outside the KV cache"),
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

    def count_inference(self, label: str, seconds: float, code: str | None) -> None:
        """One that has ended, with an error code unless it succeeded. `label` is its model's."""
        if code is None:
            self._duration.observe(seconds)
        else:
            self._failures.labels(label, code).inc()
        self._requests.labels(label).inc()

    def label(self, model: str) -> str:
        """The model's id, or `other` unless it is known to be one of ours."""
        return model if model in self._models else OTHER

    def know(self, models: Iterable[str]) -> None:
        """These are models of ours: their names may be labels, and their counters begin at 0."""
        for model in models:
            self._models.add(model)
            self._requests.labels(model)

    def count_tokens(self, model: str, usage: Usage) -> None:
        self._tokens.labels(self.label(model), "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(self.label(model), "completion").inc(usage.completion_tokens)

    def observe_latencies(self, timings: Timings, n_tokens: int) -> None:
        """Of one sequence. One that produced nothing has no latencies."""
        if n_tokens > 0:
            self._first_token.observe((timings.queue_ms + timings.prefill_ms) / 1000)
        if n_tokens > 1:
            self._between_tokens.observe(timings.decode_ms / 1000 / (n_tokens - 1))

    def add(self, collector: Collector) -> None:
        """Let somebody else's families appear among these."""
        self._registry.register(collector)

    def families(
        self, stats: Mapping[str, EngineStats], loaded: Iterable[str], restarts: Mapping[str, int]
    ) -> list[Metric]:
        """Everything there is to say now."""
        return [*self._registry.collect(), *_engine_families(stats, loaded, restarts)]


class _Families:
    """A collector of what has been collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Iterable[Metric]) -> bytes:
    """The text exposition format, version 0.0.4."""
    return generate_latest(_Families(families))


def _engine_families(
    stats: Mapping[str, EngineStats], loaded: Iterable[str], restarts: Mapping[str, int]
) -> Iterator[Metric]:
    for field, (name, help_text) in _ENGINE_METRICS.items():
        family = (GaugeMetricFamily if field in _GAUGES else CounterMetricFamily)(name, help_text, labels=["model"])
        for model, values in stats.items():
            family.add_metric([model], float(getattr(values, field)))
        yield family
    up = GaugeMetricFamily("inferno_model_loaded", "1 for a model that is in memory", labels=["model"])
    for model in loaded:
        up.add_metric([model], 1.0)
    yield up
    started = CounterMetricFamily("inferno_worker_restarts", "Times a worker was started again", labels=["model"])
    for model, count in restarts.items():
        started.add_metric([model], float(count))
    yield started
