"""What keys, limits, metrics, traces and logs cost together: one server with all of them on, one with all that can be
switched off, 16 clients each, in alternating rounds. Run: `python -m benchmarks.overhead`."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import ClassVar

from benchmarks.measurement import ratios, summary
from benchmarks.peers.base import Options
from benchmarks.peers.inferno_server import InfernoServer
from benchmarks.peers.server import Served
from benchmarks.plan import alternating
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.clients import UniquePrompts
from tests.models import generation_model

ROUNDS = 4
LOAD = UniquePrompts(name="overhead", clients=16, requests=4, prompt=16, new=48)
LIFTED = ("REQUESTS_PER_MINUTE", "REQUESTS_PER_HOUR", "TOKENS_PER_MINUTE", "CONCURRENT_REQUESTS")


class Everything(InfernoServer):
    flags = ()
    settings: ClassVar[dict[str, str]] = {
        "INFERNO_LOG_FORMAT": "json",
        **{f"INFERNO_LIMITS_{name}": "1000000000" for name in LIFTED},
    }


class Nothing(InfernoServer):
    key = None
    flags = ("--no-auth", "--no-rate-limits")
    settings: ClassVar[dict[str, str]] = {"INFERNO_TRACES_SAMPLE_RATIO": "0", "INFERNO_LOG_LEVEL": "error"}


def main() -> None:
    model = generation_model()
    options, vocabulary = Options(os.cpu_count() or 1, Path()), Vocabulary.of(model)
    speeds: dict[str, dict[int, float]] = {"on": {}, "off": {}}
    with (
        Everything().start(model, LOAD.setting, options) as everything,
        Nothing().start(model, LOAD.setting, options) as nothing,
    ):
        servers: dict[str, Served] = {"on": everything, "off": nothing}
        for server in servers.values():
            server.warm_up(LOAD.setting, vocabulary)
        for number in range(ROUNDS):
            for name in alternating(list(servers), number):
                exchanges = servers[name].exchanges(LOAD, vocabulary, number)
                speeds[name][number] = summary(exchanges)["output_tok_s"]
            print(f"on {speeds['on'][number]:7.1f}  off {speeds['off'][number]:7.1f} tokens/s")
    print(f"median ratio {statistics.median(ratios(speeds['on'], speeds['off'])):.3f}")


if __name__ == "__main__":
    main()
