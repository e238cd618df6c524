"""A cold burst of requests at one instant whose prompts begin alike: time to first token and tokens per second.

Builds of the engine's extension module alternate, each round in a process of its own. Without `--other` the burst is
compared with one that has nothing in common. `--live` texts are being generated beside it.

    python -m benchmarks.prefix --other path/to/another/_core.so
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

_LIVE_TOKENS = 2000


def open_core(arguments: argparse.Namespace) -> Any:
    """The engine, of the extension module at `--core` or of the installed one."""
    if arguments.core:
        spec = importlib.util.spec_from_file_location("inferno._core", arguments.core)
        assert spec is not None
        assert spec.loader is not None
        _core = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(_core)
    else:
        from inferno import _core
    n_sequences = arguments.requests + arguments.live
    context = max(arguments.shared + arguments.own + arguments.new, _LIVE_TOKENS + 64) + 8
    return _core.Engine(arguments.child, {"parallel": n_sequences, "context_size": context})


def tokens(core: Any, seed: int, n: int) -> list[int]:
    n_vocab = core.info["n_vocab"]
    return [(7919 * seed + 31 * i) % (n_vocab // 2) + n_vocab // 4 for i in range(n)]


def finished(core: Any, ids: list[int]) -> dict[int, Any]:
    """Sequence id -> the timings of its end, once all have ended."""
    ends: dict[int, Any] = {}
    while not ends.keys() >= set(ids):
        core.wait(1.0)
        ends |= {event[1]: event[4] for event in core.drain() if event[0] == 1}
    return ends


def child(arguments: argparse.Namespace) -> None:
    core = open_core(arguments)
    sampling = {"max_tokens": arguments.new, "ignore_eos": True}
    finished(core, core.submit([tokens(core, 99, 64)], [sampling]))  # memory is touched for the first time
    live = [tokens(core, 300 + i, 20) for i in range(arguments.live)]
    live_ids = core.submit(live, [{"max_tokens": _LIVE_TOKENS, "ignore_eos": True}] * len(live)) if live else []
    while core.stats()["completion_tokens_total"] < arguments.new + 5 * len(live):
        core.wait(0.1)
        core.drain()
    heads = [tokens(core, 0 if arguments.alike else i + 1, arguments.shared) for i in range(arguments.requests)]
    prompts = [head + tokens(core, 200 + i, arguments.own) for i, head in enumerate(heads)]
    start = time.perf_counter()
    ends = finished(core, core.submit(prompts, [sampling] * len(prompts)))
    elapsed = time.perf_counter() - start
    core.cancel(live_ids)
    first = statistics.median(queue_ms + prefill_ms for queue_ms, prefill_ms, _ in ends.values())
    print(json.dumps({"ttft_p50_ms": first, "tokens_per_s": arguments.requests * arguments.new / elapsed}))


def run(arguments: argparse.Namespace, core: str, alike: bool) -> dict[str, float]:
    from tests.models import generation_model

    model = arguments.model or str(generation_model())
    command = [sys.executable, "-m", "benchmarks.prefix", "--child", model, "--core", core]
    command += [f"--{name}={getattr(arguments, name)}" for name in ("requests", "shared", "own", "new", "live")]
    command += ["--alike"] if alike else []
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return result


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    sides = {"this": ("", True), "other": (arguments.other or "", bool(arguments.other))}
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for round_number in range(arguments.rounds):
        for side in list(sides) if round_number % 2 == 0 else reversed(sides):
            runs[side].append(run(arguments, *sides[side]))
    report: dict[str, Any] = {}
    for key in ("ttft_p50_ms", "tokens_per_s"):
        for side in sides:
            report[f"{key}_{side}"] = round(statistics.median(row[key] for row in runs[side]), 1)
        ratios = [a[key] / b[key] for a, b in zip(runs["this"], runs["other"], strict=True)]
        report[f"{key}_ratio"] = round(statistics.median(ratios), 3)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="another build's extension module; without it, prompts that differ")
    parser.add_argument("--model", help="a GGUF file; the default model when left out")
    for name, default in {"requests": 16, "shared": 400, "own": 32, "new": 32, "live": 0, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--core", default="", help=argparse.SUPPRESS)
    parser.add_argument("--alike", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
    else:
        print(json.dumps(compare(arguments), indent=2))


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    main()
