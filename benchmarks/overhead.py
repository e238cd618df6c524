"""What keys, limits, metrics, traces and logs cost together: one server with all of them on, one with all that can be
switched off, 16 clients each, in alternating rounds. Run: `python -m tests.models python benchmarks/overhead.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

CLIENTS, REQUESTS, TOKENS, ROUNDS = 16, 4, 48, 4
KEY = "benchmark-key"
BODY = {"model": "bench", "prompt": "Once upon a time", "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.7}
LIFTED = ("REQUESTS_PER_MINUTE", "REQUESTS_PER_HOUR", "TOKENS_PER_MINUTE", "CONCURRENT_REQUESTS")
ON = {**{f"INFERNO_LIMITS_{name}": "1000000000" for name in LIFTED}, "INFERNO_LOG_FORMAT": "json"}
OFF = {"INFERNO_LIMITS_ENABLED": "false", "INFERNO_TRACES_SAMPLE_RATIO": "0", "INFERNO_LOG_LEVEL": "error"}


@contextlib.contextmanager
def serving(model: str, environment: dict[str, str], *flags: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "inferno.cli.main", "serve", "--port", str(port), "--alias", f"bench={model}"]
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("w") as log:
        command += ["--data-dir", directory, "--model", "bench", "--parallel", str(CLIENTS), *flags]
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            while "Inferno is ready" not in (Path(directory) / "log").read_text():
                assert process.poll() is None, (Path(directory) / "log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


async def tokens_per_s(url: str) -> float:
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=120) as client:

        async def one_client() -> None:
            for _ in range(REQUESTS):
                (await client.post("/inference", json=BODY)).raise_for_status()

        began = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(CLIENTS)))
        return CLIENTS * REQUESTS * TOKENS / (time.perf_counter() - began)


def main() -> None:
    model = os.environ["INFERNO_TEST_MODEL"]
    with (
        serving(model, {**ON, "INFERNO_API_KEY": KEY}) as full,
        serving(model, OFF, "--no-auth") as bare,
    ):
        for url in (full, bare):
            asyncio.run(tokens_per_s(url))
        rounds = [(asyncio.run(tokens_per_s(full)), asyncio.run(tokens_per_s(bare))) for _ in range(ROUNDS)]
    for with_all, without in rounds:
        print(f"on {with_all:7.1f}  off {without:7.1f}  ratio {with_all / without:.3f}")
    print(f"median ratio {statistics.median(a / b for a, b in rounds):.3f}")


if __name__ == "__main__":
    main()
