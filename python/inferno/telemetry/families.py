"""Metric families as plain values, for JSON."""

from __future__ import annotations

import msgspec
from prometheus_client.core import Metric


class Sample(msgspec.Struct, frozen=True):
    """One line of the exposition."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True):
    """`name` and `type` are those of the exposition's TYPE line."""

    name: str
    type: str
    help: str
    samples: list[Sample]


def family(metric: Metric) -> Family:
    """One of prometheus_client's, whose counters lack the _total that the exposition adds."""
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    samples = [Sample(sample.name, dict(sample.labels), float(sample.value)) for sample in metric.samples]
    return Family(name, metric.type, metric.documentation, samples)
