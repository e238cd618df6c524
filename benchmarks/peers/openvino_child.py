"""The child of `openvino_engine.py`. Runs in OpenVINO's environment, so it imports nothing of this project."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino_genai

KV_BYTES_PER_TOKEN = 64 << 10  # ample for the small models measured here
GIB = 1 << 30


def pipeline(model: str, parallel: int, context: int, threads: int) -> Any:
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = max(1, -(-parallel * context * KV_BYTES_PER_TOKEN // GIB))
    scheduler.max_num_seqs = parallel
    scheduler.enable_prefix_caching = True
    return openvino_genai.ContinuousBatchingPipeline(
        model, scheduler_config=scheduler, device="CPU", properties={"INFERENCE_NUM_THREADS": threads}
    )


def sampling(max_tokens: int) -> Any:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos = max_tokens, True
    # as client.SAMPLING
    config.do_sample, config.temperature, config.top_k, config.top_p = True, 0.7, 40, 0.9
    return config


class Client:
    """Sends its prompts one after the other."""

    def __init__(self, prompts: list[list[int]], submit: Callable[[list[int]], Any]) -> None:
        self._prompts, self._submit = iter(prompts), submit
        self.exchanges: list[dict[str, Any]] = []
        self.handle: Any = None
        self.next()

    def next(self) -> None:
        prompt = next(self._prompts, None)
        self.handle = None
        if prompt is not None:
            times: list[list[float]] = [[]]
            exchange = {"begun": time.perf_counter(), "prompt_tokens": len(prompt), "times": times}
            self.exchanges.append({**exchange, "completion_tokens": 0})
            self.handle = self._submit(prompt)

    def read(self) -> None:
        """Take what the last step brought."""
        if self.handle is None:
            return
        now, exchange = time.perf_counter(), self.exchanges[-1]
        while self.handle.can_read():
            for output in self.handle.read().values():
                exchange["times"][0].append(now)
                exchange["completion_tokens"] += len(output.generated_ids)
        if self.handle.get_status() != openvino_genai.GenerationStatus.RUNNING:
            exchange["ended"] = now
            self.next()


def run(pipe: Any, job: dict[str, Any], first_id: int) -> list[dict[str, Any]]:
    config, ids = sampling(job["max_tokens"]), iter(range(first_id, sys.maxsize))

    def submit(prompt: list[int]) -> Any:
        return pipe.add_request(next(ids), openvino.Tensor(np.array([prompt], dtype=np.int64)), config)

    clients = [Client(prompts, submit) for prompts in job["clients"]]
    while pipe.has_non_finished_requests():
        pipe.step()
        for client in clients:
            client.read()
    return [exchange for client in clients for exchange in client.exchanges]


def main() -> None:
    pipe = pipeline(sys.argv[1], *map(int, sys.argv[2:5]))
    print("ready", flush=True)
    done = 0
    for line in sys.stdin:
        exchanges = run(pipe, json.loads(line), done)
        done += len(exchanges)
        print(json.dumps(exchanges), flush=True)


if __name__ == "__main__":
    main()
