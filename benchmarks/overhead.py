"""What keys, limits, metrics, traces and logs cost together: one server with all of them on, one with all that can be
switched off, 16 clients each, in alternating rounds, twice: of two servers on one machine, the one that started first
can be faster for as long as both live. Run: `python -m benchmarks.overhead`."""

from __future__ import annotations

import contextlib
import os
import statistics
from pathlib import Path
from typing import ClassVar

from benchmarks.measurement import ratios, summary
from benchmarks.peers.base import Options
from benchmarks.peers.inferno_server import InfernoServer
from benchmarks.peers.server import Served, ServerPeer
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


def compare(order: tuple[ServerPeer, ServerPeer], model: Path, vocabulary: Vocabulary) -> list[float]:
    """Tokens per second of Everything over those of Nothing, by round; servers start in `order`."""
    options = Options(os.cpu_count() or 1, Path())
    speeds: dict[str, dict[int, float]] = {"on": {}, "off": {}}
    with contextlib.ExitStack() as stack:
        servers: dict[str, Served] = {}
        for peer in order:
            server = stack.enter_context(peer.start(model, LOAD.setting, options))
            server.warm_up(LOAD.setting, vocabulary)
            servers["on" if isinstance(peer, Everything) else "off"] = server
        for number in range(ROUNDS):
            for name in alternating(list(servers), number):
                exchanges = servers[name].exchanges(LOAD, vocabulary, number)
                speeds[name][number] = summary(exchanges)["output_tok_s"]
            print(f"on {speeds['on'][number]:7.1f}  off {speeds['off'][number]:7.1f} tokens/s", flush=True)
    return ratios(speeds["on"], speeds["off"])


def main() -> None:
    model = generation_model()
    vocabulary = Vocabulary.of(model)
    first = compare((Everything(), Nothing()), model, vocabulary)
    second = compare((Nothing(), Everything()), model, vocabulary)
    print(f"median ratio {statistics.median([*first, *second]):.3f}")


if __name__ == "__main__":
    main()
