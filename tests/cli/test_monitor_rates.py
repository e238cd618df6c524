"""The arithmetic of `inferno monitor`: what happened between two samples."""

from __future__ import annotations

import pytest
from inferno import errors
from inferno.cli.monitor.rates import Latency, increase, latency, total
from inferno.cli.monitor.report import Report, report
from inferno.cli.monitor.sample import parse

from tests.cli.monitored import ITEMS, STARTED, Monitored

Series = list[tuple[dict[str, str], float]]


def counted(**values: float) -> dict[str, Series]:
    """A counter `c` with a label `model`."""
    return {"c": [({"model": model}, value) for model, value in values.items()]}


# ---- counters and histograms ----


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (counted(a=5), counted(a=8), 3),
        (counted(a=5, b=1), counted(a=8, b=11), 13),
        (counted(), counted(a=8), 8),  # it was not there: it stood at 0
        (counted(a=5), counted(a=2), 2),  # it began again
        (counted(a=5), counted(a=5), 0),
        (counted(a=5), counted(), 0),
        ({}, {}, 0),
    ],
)
def test_increase(before: dict[str, Series], now: dict[str, Series], expected: float) -> None:
    assert increase(before, now, "c") == expected


def test_increase_and_total_of_some_series() -> None:
    before, now = counted(a=5, b=1), counted(a=8, b=11)
    assert increase(before, now, "c", model="b") == 10
    assert total(now, "c", model="a") == 8
    assert total(now, "c") == 19
    assert total(now, "c", model="x") is None
    assert total(now, "x") is None


def histogram(*counts: float) -> dict[str, Series]:
    bounds = ("0.1", "0.2", "0.4", "+Inf")
    return {"h_bucket": [({"le": bound}, count) for bound, count in zip(bounds, counts, strict=True)]}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        # Ten between 0.1 and 0.2, whatever came before.
        (histogram(90, 90, 95, 99), histogram(90, 100, 105, 109), Latency(count=10, p50=150, p90=190, p99=199)),
        (histogram(0, 0, 0, 0), histogram(5, 10, 10, 10), Latency(count=10, p50=100, p90=180, p99=198)),
        # Beyond the last bound nothing more is known.
        (histogram(0, 0, 0, 0), histogram(0, 0, 0, 4), Latency(count=4, p50=400, p90=400, p99=400)),
        (histogram(1, 2, 3, 4), histogram(1, 2, 3, 4), Latency(count=0, p50=None, p90=None, p99=None)),
        ({}, {}, Latency(count=0, p50=None, p90=None, p99=None)),
    ],
)
def test_latency(before: dict[str, Series], now: dict[str, Series], expected: Latency) -> None:
    assert latency(before, now, "h") == expected


# ---- what a server's samples come to ----


@pytest.fixture
def server() -> Monitored:
    server = Monitored("llama", "other-model")
    server.load("llama")
    server.says("llama", completion_tokens_total=1000, prompt_tokens_total=500)
    return server


def tokens_per_s(found: Report) -> float:
    assert found.throughput is not None
    return found.throughput.generated_tokens_per_s


def test_one_sample_has_no_rates(server: Monitored) -> None:
    found = report(None, server.sample(60))
    assert (found.version, found.uptime_seconds, found.draining) == ("9.8.7", 60, False)
    assert (found.interval_seconds, found.throughput, found.latency_ms) == (None, None, None)
    assert found.engines.running == 4
    assert [(model.id, model.state) for model in found.models] == [("llama", "ready"), ("other-model", "unloaded")]
    assert found.models[0].generated_tokens_per_s is None


def test_two_samples_have_rates(server: Monitored) -> None:
    before = server.sample(60)
    server.says("llama", completion_tokens_total=1100, prompt_tokens_total=550)
    for _ in range(3):
        server.finish("llama", 0.3)
    server.metrics.count_inference("llama", 0.1, "TIMEOUT")
    server.figures["batch_items"] = {**ITEMS, "completed": ITEMS["completed"] + 2}
    found = report(before, server.sample(64))
    assert found.throughput is not None
    rates = found.throughput
    assert (rates.generated_tokens_per_s, rates.prompt_tokens_per_s) == (25, 12.5)
    assert (rates.requests_per_s, rates.failures_per_s, rates.batch_items_per_s) == (1, 0.25, 0.5)
    assert found.latency_ms is not None
    assert found.latency_ms.request == Latency(count=3, p50=375, p90=475, p99=497.5)  # between 250 and 500
    assert found.latency_ms.time_to_first_token.count == 3
    assert found.latency_ms.inter_token.p50 == pytest.approx(7.5)  # between 5 and 10
    assert [model.generated_tokens_per_s for model in found.models] == [25, None]


def test_a_server_started_anew_began_with_nothing(server: Monitored) -> None:
    server.finish("llama", 0.3)
    before = server.sample(60)
    again = Monitored("llama", started=STARTED + 80)
    again.load("llama")
    again.says("llama", completion_tokens_total=3000)
    again.finish("llama", 0.3)
    again.finish("llama", 0.3)
    found = report(before, again.sample(90))
    assert (found.uptime_seconds, found.interval_seconds) == (10, 10)
    assert tokens_per_s(found) == 300
    assert found.latency_ms is not None
    assert found.latency_ms.request.count == 2
    assert found.throughput is not None
    assert found.throughput.batch_items_per_s == 0  # the database is the same


def test_an_engine_that_was_silent_makes_no_spike(server: Monitored) -> None:
    server.silent("llama")
    before = server.sample(60)
    server.says("llama", completion_tokens_total=900_000)
    now = server.sample(62)
    assert tokens_per_s(report(before, now)) == 0
    server.says("llama", completion_tokens_total=900_100)
    assert tokens_per_s(report(now, server.sample(64))) == 50


def test_an_engine_that_is_silent_now(server: Monitored) -> None:
    before = server.sample(60)
    server.silent("llama")
    found = report(before, server.sample(62))
    assert tokens_per_s(found) == 0
    assert (found.models[0].engine, found.models[0].generated_tokens_per_s) == (None, None)


def test_a_model_loaded_in_between_counts_from_its_beginning(server: Monitored) -> None:
    before = server.sample(60)
    server.load("other-model")
    server.says("other-model", completion_tokens_total=80)
    found = report(before, server.sample(62))
    assert tokens_per_s(found) == 40
    assert found.engines.slots == 16


def test_a_worker_started_anew_counts_from_its_beginning(server: Monitored) -> None:
    before = server.sample(60)
    server.says("llama", completion_tokens_total=20)
    assert tokens_per_s(report(before, server.sample(62))) == 10


def test_batches_that_are_forgotten_are_no_negative_rate(server: Monitored) -> None:
    before = server.sample(60)
    server.figures["batch_items"] = {**ITEMS, "completed": 0}
    found = report(before, server.sample(62))
    assert found.throughput is not None
    assert found.throughput.batch_items_per_s == 0


def test_batches_nobody_tells_of(server: Monitored) -> None:
    before = server.sample(60)
    server.figures |= {"batches": None, "batch_items": None}
    found = report(before, server.sample(62))
    assert found.batches is None
    assert found.throughput is not None
    assert found.throughput.batch_items_per_s is None


@pytest.mark.parametrize("text", ["", "go_goroutines 5\n", "<html>", 'a{b="c" 1', '{"error": {}}'])
def test_what_is_not_inferno(text: str) -> None:
    with pytest.raises(errors.InternalError, match="http://x/metrics"):
        parse(text, at=0, now=0, url="http://x")
