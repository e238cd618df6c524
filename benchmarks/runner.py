"""Running groups of workloads, round by round."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.exchange import Failed, NotSupported
from benchmarks.measurement import Metrics
from benchmarks.peers import PEERS
from benchmarks.peers.base import Options, Running
from benchmarks.plan import Group, alternating
from benchmarks.prompts import Vocabulary
from benchmarks.results import Run, rounded
from benchmarks.workloads.base import Workload

#: What a peer that breaks may bring about in the client.
BROKEN = (Failed, OSError, msgspec.MsgspecError)


class Runner:
    def __init__(self, peers: list[str], rounds: int, options: Options, say: Callable[[str], None]) -> None:
        self._peers, self._rounds, self._options, self._say = peers, rounds, options, say
        self.runs: list[Run] = []
        self._given_up: set[tuple[str, str, str]] = set()  # workload, file, peer

    def run(self, group: Group, model: Path, vocabulary: Vocabulary) -> None:
        peers = group.peers(self._peers)
        if group.fresh:
            self._start_for_each_round(group, peers, model, vocabulary)
        else:
            self._start_once(group, peers, model, vocabulary)

    def _start_once(self, group: Group, peers: list[str], model: Path, vocabulary: Vocabulary) -> None:
        with contextlib.ExitStack() as stack:
            running: dict[str, Running] = {}
            for name in peers:
                try:
                    started = stack.enter_context(PEERS[name].start(model, group.setting, self._options))
                    started.warm_up(group.setting, vocabulary)
                    running[name] = started
                except BROKEN as error:
                    self._give_up(group, name, str(error))
            for number in range(self._rounds):
                for workload in group.workloads:
                    for name in alternating(list(running), number):
                        self._measure(workload, group.file, name, number, running[name], vocabulary)

    def _start_for_each_round(self, group: Group, peers: list[str], model: Path, vocabulary: Vocabulary) -> None:
        workload = group.workloads[0]
        for number in range(self._rounds):
            for name in alternating(peers, number):
                if (workload.name, group.file, name) in self._given_up:
                    continue
                try:
                    with PEERS[name].start(model, group.setting, self._options) as started:
                        self._measure(workload, group.file, name, number, started, vocabulary)
                except BROKEN as error:
                    self._give_up(group, name, str(error))

    def _measure(
        self, workload: Workload, file: str, name: str, number: int, running: Running, vocabulary: Vocabulary
    ) -> None:
        key = (workload.name, file, name)
        if name not in workload.peers or key in self._given_up or number >= workload.most_rounds:
            return
        try:
            metrics = rounded(running.measure(workload, vocabulary, number))
        except NotSupported as error:
            self._note(Run(*key, number, refusal=str(error)))
        except BROKEN as error:
            self._note(Run(*key, number, error=str(error)))
        else:
            self._note(Run(*key, number, metrics))

    def _give_up(self, group: Group, name: str, error: str) -> None:
        for workload in group.workloads:
            if name in workload.peers:
                self._note(Run(workload.name, group.file, name, 0, error=error))

    def _note(self, run: Run) -> None:
        """A peer that refuses or fails is not asked for the same again."""
        self.runs.append(run)
        if not run.metrics:
            self._given_up.add((run.workload, run.file, run.peer))
        self._say(f"{run.workload:14} {run.file:6} {run.peer:22} {run.round + 1}: {_shown(run)}")


def _shown(run: Run) -> str:
    if run.refusal:
        return f"not supported: {run.refusal}"
    return f"failed: {run.error.splitlines()[-1]}" if run.error else _headline(run.metrics)


def _headline(metrics: Metrics) -> str:
    return ", ".join(f"{name} {metrics[name]:g}" for name in ("output_tok_s", "input_tok_s") if name in metrics)
