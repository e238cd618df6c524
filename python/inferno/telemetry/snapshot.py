"""The metrics a dashboard wants, folded into one small object. Rates are the difference of two snapshots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from prometheus_client.core import Metric

from inferno.telemetry.metrics import OTHER

#: Sample name -> (labels, value) of each sample.
Samples: TypeAlias = Mapping[str, list[tuple[Mapping[str, str], float]]]


def snapshot(families: Iterable[Metric]) -> dict[str, Any]:
    """Counts since the server began, JSON-serialisable."""
    samples = by_name(families)
    known = {labels["model"] for labels, _ in samples["inferno_inference_requests_total"]} - {OTHER}
    states = {labels["model"]: labels["state"] for labels, _ in samples["inferno_model_state"]}
    return {
        **_counts(samples),
        "time_to_first_token_ms": _percentiles(samples, "inferno_time_to_first_token_seconds"),
        "inter_token_latency_ms": _percentiles(samples, "inferno_inter_token_latency_seconds"),
        "batches": _states(samples, "inferno_batches"),
        "batch_items": _states(samples, "inferno_batch_items"),
        "models": [
            {"id": model, "state": states.get(model, "unloaded"), **_counts(samples, model=model)}
            for model in sorted(known | states.keys())
        ],
    }


def by_name(families: Iterable[Metric]) -> Samples:
    """All samples of the families; none for a name that is not there."""
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
    for family in families:
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return samples


def _states(samples: Samples, name: str) -> dict[str, int] | None:
    """How many there are in each state, None when nobody knows."""
    return {labels["state"]: int(count) for labels, count in samples[name]} or None


def _counts(samples: Samples, **labels: str) -> dict[str, Any]:
    """Of all models, or of the one in `labels`."""

    def total(name: str, **more: str) -> int:
        wanted = (labels | more).items()
        return int(sum(value for found, value in samples[name] if wanted <= found.items()))

    return {
        "requests": {
            "total": total("inferno_inference_requests_total"),
            "failed": total("inferno_inference_failures_total"),
        },
        "tokens": {kind: total("inferno_tokens_total", kind=kind) for kind in ("prompt", "completion")},
        "running": total("inferno_engine_running_sequences"),
        "waiting": total("inferno_engine_waiting_sequences"),
        "kv_tokens": {
            "used": total("inferno_engine_kv_tokens_used"),
            "total": total("inferno_engine_kv_tokens_capacity"),
        },
    }


def _percentiles(samples: Samples, name: str) -> dict[str, float | None]:
    """In milliseconds, None without observations."""
    buckets = [(float(labels["le"]), count) for labels, count in samples[f"{name}_bucket"]]
    return {f"p{percent}": _milliseconds(quantile(buckets, percent / 100)) for percent in (50, 95)}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def quantile(buckets: list[tuple[float, float]], q: float) -> float | None:
    """The estimate that Prometheus's histogram_quantile makes: linear inside a bucket, and the last finite bound
    for what lies beyond it. `buckets` are (upper bound, how many are at most that), ascending, up to infinity."""
    rank = q * buckets[-1][1] if buckets else 0.0
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if rank and count >= rank:
            is_last = bound == float("inf")
            return low if is_last else low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return None
