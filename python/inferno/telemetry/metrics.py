"""Prometheus metrics: what requests were like, and what the engines say of themselves when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from inferno.request import EngineStats, Finish, Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DURATIONS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BETWEEN_TOKENS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

_COUNTERS = frozenset(
    {
        "steps_total",
        "rows_total",
        "prompt_tokens_total",
        "cached_tokens_total",
        "completion_tokens_total",
        "preemptions_total",
    }
)
#: EngineStats field -> (metric, help).
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


class Metrics:
    """One server's metrics; label values are configured model ids only."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "inferno_inference_requests", "Total inference requests", ["model"], registry=self._registry
        )
        self.failures = Counter(
            "inferno_inference_failures", "Inference requests that failed", ["model", "code"], registry=self._registry
        )
        self.duration = Histogram(
            "inferno_inference_duration_seconds", "Inference duration", buckets=_DURATIONS, registry=self._registry
        )
        self.tokens = Counter(
            "inferno_tokens", "Tokens of finished requests", ["model", "kind"], registry=self._registry
        )
        self.first_token = Histogram(
            "inferno_time_to_first_token_seconds",
            "From acceptance to the first token",
            buckets=_FIRST_TOKEN,
            registry=self._registry,
        )
        self.between_tokens = Histogram(
            "inferno_inter_token_latency_seconds",
            "Mean time between the tokens of one text",
            buckets=_BETWEEN_TOKENS,
            registry=self._registry,
        )

    def observe_usage(self, model: str, usage: Usage) -> None:
        self.tokens.labels(model, "prompt").inc(usage.prompt_tokens)
        self.tokens.labels(model, "completion").inc(usage.completion_tokens)

    def observe_finish(self, finish: Finish) -> None:
        """Latencies of one sequence that produced tokens."""
        n = finish.usage.completion_tokens
        if n == 0:
            return
        self.first_token.observe((finish.timings.queue_ms + finish.timings.prefill_ms) / 1000)
        if n > 1:
            self.between_tokens.observe(finish.timings.decode_ms / 1000 / (n - 1))

    def render(self, stats: Mapping[str, EngineStats], loaded: Iterable[str], restarts: Mapping[str, int]) -> bytes:
        """The text exposition format, version 0.0.4."""
        engines = CollectorRegistry()
        engines.register(_EngineCollector(stats, loaded, restarts))
        return generate_latest(self._registry) + generate_latest(engines)


class _EngineCollector:
    def __init__(self, stats: Mapping[str, EngineStats], loaded: Iterable[str], restarts: Mapping[str, int]) -> None:
        self._stats = stats
        self._loaded = loaded
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        for field, (name, help_text) in _ENGINE_METRICS.items():
            family = (CounterMetricFamily if field in _COUNTERS else GaugeMetricFamily)(
                name, help_text, labels=["model"]
            )
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
