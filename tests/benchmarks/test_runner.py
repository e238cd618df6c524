"""Rounds of groups, with peers that do as they are told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.exchange import Failed, NotSupported
from benchmarks.measurement import Metrics
from benchmarks.peers.base import Options, Peer, Running
from benchmarks.plan import groups
from benchmarks.prompts import Vocabulary
from benchmarks.results import Run
from benchmarks.runner import PEERS, Runner
from benchmarks.workloads.base import Setting, Workload
from benchmarks.workloads.clients import UniquePrompts
from benchmarks.workloads.cold_start import ColdStart


class Told(Peer, Running):
    """Raises what it is told to, when it starts or when it is measured; else it is as fast as the round's number."""

    def __init__(self, start: Exception | None = None, measure: Exception | None = None) -> None:
        self._start, self._measure = start, measure
        self.starts = self.stops = 0

    @contextlib.contextmanager
    def start(self, model: Path, setting: Setting, options: Options) -> Iterator[Running]:
        if self._start:
            raise self._start
        self.starts += 1
        yield self
        self.stops += 1

    def warm_up(self, setting: Setting, vocabulary: Vocabulary) -> None:
        """Nothing to warm."""

    def measure(self, workload: Workload, vocabulary: Vocabulary, round_number: int) -> Metrics:
        if self._measure:
            raise self._measure
        return {"output_tok_s": float(round_number + 1)}


WORKLOAD = UniquePrompts(name="w", peers=("a", "b"), clients=2, requests=1, prompt=8, new=4)


def run(
    monkeypatch: pytest.MonkeyPatch, peers: dict[str, Told], *workloads: Workload, rounds: int = 3
) -> tuple[list[Run], list[str]]:
    for name, peer in peers.items():
        monkeypatch.setitem(PEERS, name, peer)
    said: list[str] = []
    runner = Runner(list(peers), rounds, Options(1, Path()), said.append)
    for group in groups(list(workloads), ["q4_1"]):
        runner.run(group, Path(), Vocabulary([1]))
    return runner.runs, said


def order(runs: list[Run]) -> list[str]:
    return [f"{run.workload}{run.peer}{run.round}" for run in runs]


def test_peers_alternate_and_are_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = {"a": Told(), "b": Told()}
    runs, _ = run(monkeypatch, peers, WORKLOAD)
    assert order(runs) == ["wa0", "wb0", "wb1", "wa1", "wa2", "wb2"]
    assert [(peer.starts, peer.stops) for peer in peers.values()] == [(1, 1), (1, 1)]


def test_a_fresh_workload_starts_its_peers_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = {"a": Told(), "b": Told()}
    fresh = ColdStart(name="f", peers=("a", "b"), clients=1, prompt=8, new=4)
    runs, _ = run(monkeypatch, peers, fresh, rounds=2)
    assert order(runs) == ["fa0", "fb0", "fb1", "fa1"]
    assert peers["a"].starts == peers["a"].stops == 2


def test_a_long_workload_has_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    long = UniquePrompts(name="l", peers=("a",), clients=2, requests=1, prompt=8, new=4, most_rounds=1)
    runs, _ = run(monkeypatch, {"a": Told()}, long)
    assert order(runs) == ["la0"]


@pytest.mark.parametrize(
    ("peer", "refusal", "error"),
    [
        (Told(measure=NotSupported("no schemas")), "no schemas", ""),
        (Told(measure=Failed("it fell over")), "", "it fell over"),
        (Told(measure=ConnectionResetError("gone")), "", "gone"),
        (Told(start=Failed("no memory")), "", "no memory"),
    ],
)
def test_what_does_not_work_is_noted_once_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, peer: Told, refusal: str, error: str
) -> None:
    runs, said = run(monkeypatch, {"a": peer, "b": Told()}, WORKLOAD)
    (noted,) = [run for run in runs if run.peer == "a"]
    assert (noted.metrics, noted.refusal, noted.error) == ({}, refusal, error)
    assert [run.metrics["output_tok_s"] for run in runs if run.peer == "b"] == [1, 2, 3]
    assert any((refusal or error) in line for line in said)
