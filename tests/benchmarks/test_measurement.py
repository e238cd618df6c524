"""Numbers from exchanges, by hand."""

from __future__ import annotations

import pytest

from benchmarks.exchange import Exchange
from benchmarks.measurement import cpu_per_token, medians, percentile, ratios, summary
from benchmarks.workloads.live import LiveStreams


def test_percentile_interpolates() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile(range(101), 99) == 99
    assert percentile([5], 99) == 5


def test_summary() -> None:
    exchanges = [
        Exchange(begun=10.0, ended=12.0, times=[[10.5, 11.0, 12.0]], prompt_tokens=100, completion_tokens=3),
        Exchange(begun=11.0, ended=14.0, times=[[11.1, 11.2, 14.0]], prompt_tokens=60, completion_tokens=5),
    ]
    metrics = summary(exchanges)
    assert metrics["wall_s"] == 4
    assert metrics["output_tok_s"] == 2
    assert metrics["input_tok_s"] == 40
    assert metrics["requests"] == 2
    assert metrics["ttft_p50_ms"] == pytest.approx(300)
    assert metrics["itl_p50_ms"] == pytest.approx(750)  # of 500, 1000, 100 and 2800
    assert metrics["itl_max_ms"] == pytest.approx(2800)
    assert metrics["e2e_p50_ms"] == pytest.approx(2500)


def test_gaps_are_those_of_a_choice() -> None:
    exchange = Exchange(0, 4, [[1, 2], [1.5, 3.5]], 1, 4)
    metrics = summary([exchange])
    assert metrics["itl_max_ms"] == 2000
    assert metrics["ttft_p50_ms"] == 1000  # the first choice to say something


def test_without_pieces_there_are_no_latencies_of_pieces() -> None:
    metrics = summary([Exchange(0, 2, [], 128, 0)])
    assert metrics["e2e_p50_ms"] == 2000
    assert metrics["input_tok_s"] == 64
    assert not [name for name in metrics if name.startswith(("ttft", "itl", "output"))]


def test_processor_time_is_told_for_each_token_of_the_kind_that_counts() -> None:
    metrics = {"peer_cpu_s": 2.0, "new_tokens": 100, "prompt_tokens": 1000}
    assert cpu_per_token(metrics, "output_tok_s") == {"cpu_ms_per_token": 20}
    assert cpu_per_token(metrics, "input_tok_s") == {"cpu_ms_per_token": 2}
    assert cpu_per_token({**metrics, "new_tokens": 0}, "output_tok_s") == {}


def test_medians_of_what_each_round_has() -> None:
    assert medians([{"a": 1, "b": 5}, {"a": 3}, {"a": 2}]) == {"a": 2, "b": 5}
    assert medians([]) == {}


def test_ratios_pair_rounds() -> None:
    assert ratios({0: 10, 1: 30, 3: 5}, {0: 5, 1: 10, 2: 7}) == [2, 3]
    assert ratios({0: 1}, {0: 0}) == []


def test_live_streams_are_measured_while_long_prompts_are_answered() -> None:
    workload = LiveStreams(name="live", streams=2, new=64, prompts=2, prompt=4000)
    exchanges = [
        Exchange(0.0, 0.0, [[1.0, 9.0, 10.5, 12.0, 21.0]], kind="live"),  # cut off after the end of what is measured
        Exchange(0.0, 15.0, [[9.5, 11.0, 15.0]], 64, 3, kind="live"),
        Exchange(10.0, 14.0, [[13.0]], 4000, 8, kind="long"),
        Exchange(14.0, 20.0, [[19.0]], 4000, 8, kind="long"),
    ]
    metrics = workload.metrics(exchanges, started=0)
    assert metrics["wall_s"] == 10
    assert metrics["new_tokens"] == 4  # 10.5, 12, 11 and 15
    assert metrics["output_tok_s"] == 0.4
    assert metrics["input_tok_s"] == 800
    assert metrics["ttft_p50_ms"] == 4000
    assert metrics["itl_max_ms"] == 8000  # from 12 until 20, and still waiting
    assert metrics["itl_p50_ms"] == 1500  # of 1.5, 1.5, 8, 1.5 and 4
