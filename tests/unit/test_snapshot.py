"""Percentiles out of histograms."""

from __future__ import annotations

from math import inf

import pytest
from inferno.telemetry.snapshot import quantile


@pytest.mark.parametrize(
    ("buckets", "q", "expected"),
    [
        ([], 0.5, None),
        ([(1.0, 0.0), (inf, 0.0)], 0.5, None),
        ([(1.0, 10.0), (2.0, 10.0), (inf, 10.0)], 0.5, 0.5),
        ([(1.0, 5.0), (2.0, 10.0), (inf, 10.0)], 0.5, 1.0),
        ([(1.0, 5.0), (2.0, 10.0), (inf, 10.0)], 0.95, 1.9),
        ([(1.0, 0.0), (2.0, 0.0), (4.0, 1.0), (inf, 1.0)], 0.5, 3.0),
        ([(1.0, 1.0), (2.0, 1.0), (inf, 10.0)], 0.95, 2.0),
    ],
)
def test_quantile(buckets: list[tuple[float, float]], q: float, expected: float | None) -> None:
    assert quantile(buckets, q) == (None if expected is None else pytest.approx(expected))
