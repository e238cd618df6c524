"""How much of the engine's own throughput a batch has: the same short prompts through `inferno.LLM.generate` in this
process and through POST /batch of a server, in alternating rounds, with new prompts in each. The time of a batch goes
from its submission to its status `completed`. `busy` is the share of that time in which the engine computed. On a
machine that has other work, GOMP_SPINCOUNT=0 for both makes the ratios steadier.

    python -m benchmarks.batch [PROMPTS]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.peers.base import Options
from benchmarks.peers.inferno_server import InfernoServer
from benchmarks.peers.server import HOST, MODEL
from benchmarks.workloads.base import Setting
from tests.models import generation_model

PROMPTS, TOKENS, ROUNDS = 1000, 32, 4
PARALLEL, CONTEXT = 16, 512
SAMPLING = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.7}
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as a server's workers have it; before libgomp is loaded

#: Tokens generated per second, and the busy share.
Speed = tuple[float, float]
Measure = Callable[[list[str]], Speed]


def prompts(round_number: int, count: int) -> list[str]:
    return [f"Question {i} of round {round_number}: what is the capital of France?" for i in range(count)]


def measured(texts: list[str], busy_s: Callable[[], float], work: Callable[[], int]) -> Speed:
    """`work` returns how many tokens it had generated."""
    busy_before, began = busy_s(), time.perf_counter()
    tokens = work()
    elapsed = time.perf_counter() - began
    assert tokens == len(texts) * TOKENS
    return tokens / elapsed, (busy_s() - busy_before) / elapsed


def in_process(model: Path) -> Measure:
    from inferno import LLM

    llm = LLM(model, parallel=PARALLEL, context_size=CONTEXT)

    def measure(texts: list[str]) -> Speed:
        def work() -> int:
            return sum(result.usage.completion_tokens for result in llm.generate(texts, **SAMPLING))

        return measured(texts, lambda: llm.stats().busy_s_total, work)

    return measure


def over_http(url: str) -> Measure:
    client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {InfernoServer.key}"}, timeout=60)

    def busy_s() -> float:
        lines = client.get("/metrics").text.splitlines()
        (line,) = (line for line in lines if line.startswith("inferno_engine_busy_seconds_total{"))
        return float(line.split()[-1])

    def measure(texts: list[str]) -> Speed:
        body = {"model": MODEL, "requests": [{"prompt": text} for text in texts], **SAMPLING}

        def work() -> int:
            path = f"/batch/{client.post('/batch', json=body).raise_for_status().json()['batch_id']}"
            while client.get(path).json()["status"] == "processing":
                time.sleep(0.2)
            return sum(item["usage"]["completion_tokens"] for item in client.get(f"{path}/results").json()["results"])

        return measured(texts, busy_s, work)

    return measure


def main() -> None:
    model, count = generation_model(), int(sys.argv[1]) if len(sys.argv) > 1 else PROMPTS
    options = Options(os.cpu_count() or 1, Path())
    engine, ratios = in_process(model), []
    with InfernoServer().start(model, Setting(PARALLEL, CONTEXT), options) as server:
        batch = over_http(f"http://{HOST}:{server.client.port}")
        for measure in (engine, batch):
            measure(prompts(-1, PARALLEL))
        for number in range(ROUNDS):
            texts = prompts(number, count)
            first, second = (engine, batch) if number % 2 == 0 else (batch, engine)
            speeds = {first: first(texts), second: second(texts)}
            (of_batch, batch_busy), (of_engine, engine_busy) = speeds[batch], speeds[engine]
            ratios.append(of_batch / of_engine)
            print(
                f"batch {of_batch:7.1f} (busy {batch_busy:.3f})  engine {of_engine:7.1f} (busy {engine_busy:.3f})  "
                f"ratio {ratios[-1]:.3f}",
                flush=True,
            )
    print(f"{count} prompts: median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
