"""Prometheus metrics: what requests were like."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from inferno.request import Timings, Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DURATIONS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BETWEEN_TOKENS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
#: The label of requests whose model is none of ours: clients do not choose label values.
OTHER = "other"


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
        self._webhooks = Counter(
            "inferno_webhook_attempts", "Attempts to deliver a webhook", ["event", "state"], registry=registry
        )
        self._models: set[str] = set()

    def count_inference(self, label: str, seconds: float | None, code: str | None) -> None:
        """One that has ended, with an error code unless it succeeded. `label` is its model's; with `seconds` None it
        is not among the durations."""
        if code is not None:
            self._failures.labels(label, code).inc()
        elif seconds is not None:
            self._duration.observe(seconds)
        self._requests.labels(label).inc()

    def label(self, model: str) -> str:
        """The model's id, or `other` unless it is known to be one of ours."""
        return model if model in self._models else OTHER

    def know(self, models: Iterable[str]) -> None:
        """These are models of ours: their names may be labels, and their counters begin at 0."""
        for model in models:
            self._models.add(model)
            self._requests.labels(model)

    def know_webhooks(self, events: Iterable[str], states: Iterable[str]) -> None:
        """Their counters begin at 0."""
        for event, state in itertools.product(events, states):
            self._webhooks.labels(event, state)

    def count_webhook(self, event: str, state: str) -> None:
        """An attempt to deliver one, after which it was in `state`."""
        self._webhooks.labels(event, state).inc()

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

    def families(self) -> list[Metric]:
        """What requests were like so far, and what was added."""
        return list(self._registry.collect())


class _Families:
    """A collector of what has been collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Iterable[Metric]) -> bytes:
    """The text exposition format, version 0.0.4."""
    return generate_latest(_Families(families))
