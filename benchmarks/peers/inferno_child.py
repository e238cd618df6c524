"""The child of `inferno_engine.py`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from inferno import LLM
from inferno.request import Result

from benchmarks.client import SAMPLING
from benchmarks.exchange import Exchange, Job


def exchange(result: Result, begun: float) -> Exchange:
    """From the engine's own timings. All prompts are handed over at once: one begins when it leaves the queue, as a
    client's request does when its last has been answered."""
    timings, usage = result.choices[0].timings, result.usage
    turn = begun + timings.queue_ms / 1000
    first = turn + timings.prefill_ms / 1000
    end = first + timings.decode_ms / 1000
    return Exchange(turn, end, [[first]], usage.prompt_tokens, usage.completion_tokens)


def main(model: str, parallel: int, context: int, threads: int) -> None:
    with LLM(Path(model), parallel=parallel, context_size=context, threads=threads) as llm:
        print("ready", flush=True)
        for line in sys.stdin:
            job, begun = msgspec.json.decode(line, type=Job), time.perf_counter()
            sampling: dict[str, Any] = {**SAMPLING, "max_tokens": job.max_tokens, "ignore_eos": True}
            results = llm.generate(job.prompts(), **sampling)
            print(msgspec.json.encode([exchange(result, begun) for result in results]).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
