"""What Inferno is meant to reach, as ratios of two things measured in one run."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass

from benchmarks.measurement import ratios
from benchmarks.results import Results
from benchmarks.workloads.base import GENERATION_FILES


@dataclass(frozen=True)
class Side:
    """What is compared: a peer in a workload."""

    workload: str
    peer: str


@dataclass(frozen=True)
class Target:
    """`bound` is the least ratio of ours to theirs; the greatest, where less is better."""

    file: str
    metric: str
    ours: Side
    theirs: Side
    bound: float
    at_most: bool = False

    def is_met(self, ratio: float) -> bool:
        return ratio <= self.bound if self.at_most else ratio >= self.bound


@dataclass(frozen=True)
class Verdict:
    """Medians of the rounds, and the median of the rounds' own ratios; None where a side has not been measured."""

    target: Target
    ours: float | None
    theirs: float | None
    ratio: float | None
    spread: tuple[float, float] | None

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.target.is_met(self.ratio)


def _against(
    peer: str,
    workload: str,
    bound: float,
    files: tuple[str, ...] = ("q4_1",),
    metric: str = "output_tok_s",
    *,
    at_most: bool = False,
    ours: str = "inferno",
) -> list[Target]:
    return [Target(f, metric, Side(workload, ours), Side(workload, peer), bound, at_most) for f in files]


TARGETS: list[Target] = [
    *_against("openvino", "prefill-512", 1.1, ("q4_1", "q8_0"), "input_tok_s"),
    *_against("llama-server", "clients-1", 1.1, GENERATION_FILES),
    *_against("llama-server", "clients-16", 2.5),
    *_against("llama-server", "clients-32", 2.5),
    *_against("llama-server", "clients-16", 1.2, ("q4_0",)),
    *_against("llama-server", "clients-32", 1.2, ("q4_0",)),
    *_against("openvino", "clients-16", 1.0, ("q8_0",)),
    *_against("openvino", "clients-32", 1.0, ("q8_0",)),
    *_against("llama-server", "shared-prefix", 3.5, GENERATION_FILES),
    *_against("llama-server", "shared-prefix", 0.25, GENERATION_FILES, "ttft_p50_ms", at_most=True),
    *_against("llama-server", "live-streams", 0.1, metric="itl_p99_ms", at_most=True),
    *_against("llama-server", "live-streams", 1.5),
    Target("q4_1", "output_tok_s", Side("json-schema", "inferno"), Side("json-free", "inferno"), 0.9),
    *_against("llama-server", "offline", 2.0, ours="inferno-in-process"),
    *_against("llama-server", "embeddings", 1.3, ("minilm",), "input_tok_s"),
    *_against("inferno-in-process", "clients-16", 0.9),
    *_against("llama-server", "cold-start", 1.2, metric="peak_rss_mib", at_most=True),
]


def judge(results: Results, targets: list[Target] = TARGETS) -> list[Verdict]:
    """A verdict on each target of which at least one side was measured."""
    verdicts = [_verdict(results, target) for target in targets]
    return [verdict for verdict in verdicts if verdict.ours is not None or verdict.theirs is not None]


def _verdict(results: Results, target: Target) -> Verdict:
    ours = results.values(target.ours.workload, target.file, target.ours.peer, target.metric)
    theirs = results.values(target.theirs.workload, target.file, target.theirs.peer, target.metric)
    by_round = ratios(ours, theirs)
    return Verdict(target, _median(ours.values()), _median(theirs.values()), _median(by_round), _range(by_round))


def _median(values: Collection[float]) -> float | None:
    return statistics.median(values) if values else None


def _range(values: list[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None
