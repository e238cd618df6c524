"""The child of `inferno_engine.py`: clients of a job in one event loop, each with one prompt at a time, as a server's
clients are. All times are one clock's."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from inferno import LLM

from benchmarks.client import SAMPLING
from benchmarks.exchange import Exchange, Job, Tokens


async def exchange(llm: LLM, prompt: Tokens, sampling: dict[str, Any]) -> Exchange:
    begun = time.perf_counter()
    result = await llm.agenerate(prompt, **sampling)
    ended, usage = time.perf_counter(), result.usage
    first = ended - result.choices[0].timings.decode_ms / 1000
    return Exchange(begun, ended, [[first]], usage.prompt_tokens, usage.completion_tokens)


async def exchanges(llm: LLM, job: Job) -> list[Exchange]:
    sampling: dict[str, Any] = {**SAMPLING, "max_tokens": job.max_tokens, "ignore_eos": True}

    async def client(prompts: list[Tokens]) -> list[Exchange]:
        return [await exchange(llm, prompt, sampling) for prompt in prompts]

    return [one for its in await asyncio.gather(*map(client, job.clients)) for one in its]


def main(model: str, parallel: int, context: int, threads: int) -> None:
    with LLM(Path(model), parallel=parallel, context_size=context, threads=threads) as llm, asyncio.Runner() as loop:
        print("ready", flush=True)
        for line in sys.stdin:
            answers = loop.run(exchanges(llm, msgspec.json.decode(line, type=Job)))
            print(msgspec.json.encode(answers).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
