"""What a run of the suite brought, as a value and as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from benchmarks.measurement import Metrics, medians


class Run(msgspec.Struct, frozen=True):
    """One round of one workload by one peer: its metrics, or why there are none."""

    workload: str
    file: str
    peer: str
    round: int
    metrics: Metrics = {}
    refusal: str = ""  # the peer says that it does not do this
    error: str = ""


class ModelFile(msgspec.Struct, frozen=True):
    title: str
    bytes: int
    parameters: int  # of the matrices that every token passes, without the embedding's table


class Results(msgspec.Struct):
    """`workloads` and `peers` are titles by name, in the order in which they are shown; `headlines` the metric of each
    workload by which peers are compared; `absent` the peers that were not at hand, and why."""

    made: str
    quick: bool
    rounds: int
    machine: dict[str, Any]
    limits: dict[str, Any]
    files: dict[str, ModelFile]
    workloads: dict[str, str]
    headlines: dict[str, str]
    peers: dict[str, str]
    absent: dict[str, str] = {}
    runs: list[Run] = []

    def of(self, workload: str, file: str, peer: str) -> list[Run]:
        """In the order of rounds."""
        key = (workload, file, peer)
        return sorted((r for r in self.runs if (r.workload, r.file, r.peer) == key), key=lambda r: r.round)

    def values(self, workload: str, file: str, peer: str, metric: str) -> dict[int, float]:
        """By round."""
        return {run.round: run.metrics[metric] for run in self.of(workload, file, peer) if metric in run.metrics}

    def medians(self, workload: str, file: str, peer: str) -> Metrics:
        return medians([run.metrics for run in self.of(workload, file, peer)])

    def why_not(self, workload: str, file: str, peer: str) -> str:
        """In a few words, why there are no metrics."""
        runs = self.of(workload, file, peer)
        if any(run.refusal for run in runs):
            return "not supported"
        return "failed" if any(run.error for run in runs) else "not measured"

    def cells(self) -> list[tuple[str, str]]:
        """Pairs of workload and file that were measured, in the order in which they ran."""
        return list(dict.fromkeys((run.workload, run.file) for run in self.runs))

    def save(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        return msgspec.json.decode(path.read_bytes(), type=cls)


def rounded(metrics: Metrics) -> Metrics:
    """Four digits: more would be noise."""
    return {name: float(f"{value:.4g}") for name, value in metrics.items()}
