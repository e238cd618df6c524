"""What happened between two samples of the same metrics: counters subtracted, histograms subtracted and read."""

from __future__ import annotations

import msgspec

from inferno.telemetry.snapshot import Samples, quantile


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of `count` observations, in milliseconds; None without any."""

    count: int
    p50: float | None
    p90: float | None
    p99: float | None


def total(samples: Samples, name: str, **labels: str) -> float | None:
    """The sum of a metric's series that have these labels, None when there are none."""
    found = [value for has, value in samples.get(name, ()) if labels.items() <= has.items()]
    return sum(found) if found else None


def label_values(samples: Samples, name: str, label: str) -> set[str]:
    """The values of a label among a metric's series."""
    return {labels[label] for labels, _ in samples.get(name, ())}


def increase(before: Samples, now: Samples, name: str, **labels: str) -> float:
    """How much the series of a counter that have these labels grew, together. A series that was not there stood at 0;
    one that is less than it was began again at 0."""
    earlier = {frozenset(has.items()): value for has, value in before.get(name, ())}
    grown = 0.0
    for has, value in now.get(name, ()):
        if labels.items() <= has.items():
            was = earlier.get(frozenset(has.items()), 0.0)
            grown += value - was if value >= was else value
    return grown


def latency(before: Samples, now: Samples, name: str) -> Latency:
    """Of the observations that a histogram of seconds, without labels, made in between: the estimate that Prometheus
    makes."""
    bounds = [labels["le"] for labels, _ in now.get(f"{name}_bucket", ())]
    buckets = [(float(bound), increase(before, now, f"{name}_bucket", le=bound)) for bound in bounds]
    p50, p90, p99 = (_milliseconds(quantile(buckets, q)) for q in (0.5, 0.9, 0.99))
    return Latency(count=round(buckets[-1][1]) if buckets else 0, p50=p50, p90=p90, p99=p99)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
