"""A cold burst of requests whose prompts begin alike: time to first token and tokens per second, by ratio.

Builds of the engine's extension module alternate, each round in a process of its own. Without `--other` the same burst
is compared with one that has nothing in common.

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
from pathlib import Path
from typing import Any


def use(core: str) -> None:
    """Make the extension module at `core` the one that `inferno` imports. REQUIRES: none has been imported yet."""
    import inferno

    spec = importlib.util.spec_from_file_location("inferno._core", core)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["inferno._core"] = inferno._core = module
    spec.loader.exec_module(module)


def child(arguments: argparse.Namespace) -> None:
    if arguments.core:
        use(arguments.core)
    from inferno import LLM

    context = arguments.shared + arguments.own + arguments.new + 8
    with LLM(Path(arguments.child), parallel=arguments.requests, context_size=context) as llm:
        n_vocab = llm.info.n_vocab

        def tokens(seed: int, n: int) -> list[int]:
            return [(7919 * seed + 31 * i) % (n_vocab // 2) + n_vocab // 4 for i in range(n)]

        llm.generate([tokens(99, 64)], max_tokens=4, ignore_eos=True)  # memory is touched for the first time
        heads = [tokens(0 if arguments.alike else i + 1, arguments.shared) for i in range(arguments.requests)]
        prompts = [head + tokens(200 + i, arguments.own) for i, head in enumerate(heads)]
        start = time.perf_counter()
        results = llm.generate(prompts, max_tokens=arguments.new, ignore_eos=True)
        elapsed = time.perf_counter() - start
    timings = [result.choices[0].timings for result in results]
    first = statistics.median(t.queue_ms + t.prefill_ms for t in timings)
    print(json.dumps({"ttft_p50_ms": first, "tokens_per_s": arguments.requests * arguments.new / elapsed}))


def run(arguments: argparse.Namespace, core: str, alike: bool) -> dict[str, float]:
    from tests.models import generation_model

    model = arguments.model or str(generation_model())
    command = [sys.executable, "-m", "benchmarks.prefix", "--child", model, "--core", core]
    command += [f"--{name}={getattr(arguments, name)}" for name in ("requests", "shared", "own", "new")]
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
    for name, default in {"requests": 16, "shared": 400, "own": 32, "new": 32, "rounds": 3}.items():
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
