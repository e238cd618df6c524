"""How much of the engine's own throughput a batch has: the same short prompts through `inferno.LLM.generate` in this
process and through POST /batch of a server, in alternating rounds, with new prompts in each. The time of a batch goes
from its submission to its status `completed`. Run: `python -m tests.models python -m benchmarks.batch [PROMPTS]`."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.overhead import CLIENTS as PARALLEL
from benchmarks.overhead import KEY, serving

PROMPTS, TOKENS, ROUNDS = 1000, 32, 4
SAMPLING = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.7}
SPIN = "1000"  # as a server's workers have it

Measure = Callable[[list[str]], float]


def prompts(round_number: int, count: int) -> list[str]:
    return [f"Question {i} of round {round_number}: what is the capital of France?" for i in range(count)]


def in_process(model: str) -> Measure:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)  # before libgomp is loaded
    from inferno import LLM

    llm = LLM(Path(model), parallel=PARALLEL)

    def measure(texts: list[str]) -> float:
        began = time.perf_counter()
        results = llm.generate(texts, **SAMPLING)
        elapsed = time.perf_counter() - began
        assert sum(result.usage.completion_tokens for result in results) == len(texts) * TOKENS
        return len(texts) * TOKENS / elapsed

    return measure


def over_http(url: str) -> Measure:
    client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)

    def measure(texts: list[str]) -> float:
        body = {"model": "bench", "requests": [{"prompt": text} for text in texts], **SAMPLING}
        began = time.perf_counter()
        path = f"/batch/{client.post('/batch', json=body).raise_for_status().json()['batch_id']}"
        while (status := client.get(path).json()["status"]) == "processing":
            time.sleep(0.2)
        elapsed = time.perf_counter() - began
        results = client.get(f"{path}/results").json()["results"]
        assert status == "completed"
        assert sum(item["usage"]["completion_tokens"] for item in results) == len(texts) * TOKENS
        return len(texts) * TOKENS / elapsed

    return measure


def main() -> None:
    model, count = os.environ["INFERNO_TEST_MODEL"], int(sys.argv[1]) if len(sys.argv) > 1 else PROMPTS
    environment = {"INFERNO_API_KEY": KEY, "INFERNO_LIMITS_ENABLED": "false", "GOMP_SPINCOUNT": SPIN}
    engine = in_process(model)
    with serving(model, environment) as url:
        batch = over_http(url)
        for measure in (engine, batch):
            measure(prompts(-1, PARALLEL))
        rounds = []
        for number in range(ROUNDS):
            texts = prompts(number, count)
            first, second = (engine, batch) if number % 2 == 0 else (batch, engine)
            speeds = {first: first(texts), second: second(texts)}
            rounds.append((speeds[batch], speeds[engine]))
            print(f"batch {rounds[-1][0]:7.1f}  engine {rounds[-1][1]:7.1f}  ratio {rounds[-1][0] / rounds[-1][1]:.3f}")
    print(f"{count} prompts: median ratio {statistics.median(a / b for a, b in rounds):.3f}")


if __name__ == "__main__":
    main()
