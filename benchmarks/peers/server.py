"""Servers, over HTTP."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import http.client
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import Client, closed_loop
from benchmarks.exchange import Exchange, Failed
from benchmarks.peers.base import LIMIT_S, Options, Peer, RunningProcess, last_words, plain_environment, spawned
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import Setting, Workload, warm_up

HOST = "127.0.0.1"
MODEL = "bench"
_POLL_S = 0.02
_START_LIMIT_S = 120.0


class Served(RunningProcess):
    """A server that answers, and a client for it."""

    def __init__(self, process: subprocess.Popen[bytes], started: float, client: Client) -> None:
        super().__init__(process, started)
        self.client = client

    def exchanges(self, workload: Workload, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        async def bounded() -> list[Exchange]:
            async with asyncio.timeout(LIMIT_S):
                return await workload.drive(self.client, vocabulary, round_number)

        try:
            return asyncio.run(bounded())
        except TimeoutError:
            raise Failed(f"{workload.name} did not end in time") from None

    def warm_up(self, setting: Setting, vocabulary: Vocabulary) -> None:
        asyncio.run(self._embed() if setting.embeddings else self._generate(setting, vocabulary))

    async def _generate(self, setting: Setting, vocabulary: Vocabulary) -> None:
        await closed_loop(self.client, warm_up(setting, vocabulary))

    async def _embed(self) -> None:
        async with self.client.connection() as connection:
            await connection.post("/v1/embeddings", {"input": "time people way"})


class ServerPeer(Peer):
    key: str | None = None

    @abc.abstractmethod
    def command(self, model: Path, setting: Setting, options: Options, port: int, directory: Path) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return plain_environment()

    @contextlib.contextmanager
    def start(self, model: Path, setting: Setting, options: Options) -> Iterator[Served]:
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            directory = Path(name)
            command, log = self.command(model, setting, options, port, directory), directory / "log"
            started = time.perf_counter()
            with spawned(command, log, self.environment()) as process:
                wait_until_healthy(process, port, log)
                yield Served(process, started, Client(HOST, port, MODEL, self.key))


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Raises Failed when the process ends first, or takes too long."""
    until = time.monotonic() + _START_LIMIT_S
    while not _is_healthy(port):
        if process.poll() is not None:
            raise Failed(f"it ended while it started: {last_words(log)}")
        if time.monotonic() > until:
            raise Failed(f"it did not start in {_START_LIMIT_S:.0f} s: {last_words(log)}")
        time.sleep(_POLL_S)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
