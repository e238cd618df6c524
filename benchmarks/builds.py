"""Two builds of Inferno against each other: this environment's and that of another Python, each as a server with 16
clients, in alternating rounds of one run, twice: of two servers on one machine the one that started first can be faster
for as long as both live. How a wheel compares with what is built for this machine:

    python -m benchmarks.builds build/wheel-venv/bin/python [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.peers.base import Options
from benchmarks.peers.inferno_server import InfernoServer
from benchmarks.peers.server import Served
from benchmarks.plan import alternating
from benchmarks.prompts import Vocabulary
from benchmarks.workloads import workloads
from tests.models import generation_model

ROUNDS = 5
(WORKLOAD,) = (workload for workload in workloads(quick=False) if workload.name == "clients-16")


def measure(running: dict[str, Served], vocabulary: Vocabulary, rounds: int) -> list[float]:
    """The other build's tokens per second over this one's, of each round."""
    ratios = []
    for number in range(rounds):
        speeds = {
            name: running[name].measure(WORKLOAD, vocabulary, number)[WORKLOAD.headline]
            for name in alternating(list(running), number)
        }
        ratios.append(speeds["other"] / speeds["this"])
        print(f"this {speeds['this']:7.1f}  other {speeds['other']:7.1f}  ratio {ratios[-1]:.3f}", flush=True)
    return ratios


def main(other: str, rounds: int) -> None:
    model, options = generation_model(), Options(os.cpu_count() or 1, Path())
    vocabulary, pythons, ratios = Vocabulary.of(model), {"this": sys.executable, "other": other}, []
    for order in (list(pythons), list(reversed(pythons))):
        with ExitStack() as stack:
            running = {}
            for name in order:
                peer = InfernoServer(pythons[name])
                running[name] = stack.enter_context(peer.start(model, WORKLOAD.setting, options))
                running[name].warm_up(WORKLOAD.setting, vocabulary)
            ratios += measure(running, vocabulary, rounds)
    print(f"{WORKLOAD.title}: median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS)
