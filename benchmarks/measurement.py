"""Numbers of one run, from its exchanges."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable

import numpy as np

from benchmarks.exchange import Exchange

Metrics = dict[str, float]


def percentile(values: Iterable[float], rank: float) -> float:
    """The value below which `rank` percent of the values are, interpolated."""
    return float(np.percentile(list(values), rank))


def summary(exchanges: list[Exchange]) -> Metrics:
    """Speeds over the time from the first request to the last answer's end, and latencies in milliseconds.

    TTFT runs from a request to its first piece of text, ITL from a piece to the next of the same choice, E2E from a
    request to the end of its answer.
    """
    wall = max(e.ended for e in exchanges) - min(e.begun for e in exchanges)
    new, given = sum(e.completion_tokens for e in exchanges), sum(e.prompt_tokens for e in exchanges)
    metrics = {
        "requests": len(exchanges),
        "wall_s": wall,
        "prompt_tokens": given,
        "new_tokens": new,
        "input_tok_s": given / wall,
    }
    speed = {"output_tok_s": new / wall} if new else {}
    return metrics | speed | latencies(exchanges)


def latencies(exchanges: list[Exchange]) -> Metrics:
    first = [min(times[0] for times in e.times) - e.begun for e in exchanges if e.times]
    gaps = [gap for e in exchanges for gap in gaps_of(e)]
    whole = [e.ended - e.begun for e in exchanges]
    return _ranks("ttft", first, (50, 99)) | _ranks("itl", gaps, (50, 99, 100)) | _ranks("e2e", whole, (50, 99))


def gaps_of(exchange: Exchange) -> list[float]:
    """Seconds from each piece to the next, choice by choice."""
    return [after - before for times in exchange.times for before, after in itertools.pairwise(times)]


def _ranks(name: str, seconds: list[float], ranks: tuple[int, ...]) -> Metrics:
    if not seconds:
        return {}
    return {f"{name}_{'max' if rank == 100 else f'p{rank}'}_ms": percentile(seconds, rank) * 1000 for rank in ranks}


def cpu_per_token(metrics: Metrics, headline: str) -> Metrics:
    """Processor time of the peer for each token of the kind that the headline counts: written, or read."""
    tokens = metrics["prompt_tokens" if headline == "input_tok_s" else "new_tokens"]
    return {"cpu_ms_per_token": metrics["peer_cpu_s"] / tokens * 1000} if tokens else {}


def medians(runs: list[Metrics]) -> Metrics:
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: statistics.median(run[name] for run in runs if name in run) for name in names}


def ratios(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Round by round, for the rounds that both have: a drift of the machine's speed meets both sides of a round
    alike."""
    return [ours[number] / theirs[number] for number in ours if theirs.get(number)]
