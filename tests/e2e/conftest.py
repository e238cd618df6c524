"""A real server on the real model, started as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

KEY = "your_api_key"
MODEL = "llama-2-7b"  # the API document's sample id, as an alias


class Server:
    """A child process running `inferno serve`."""

    def __init__(self, data_dir: Path, *arguments: str, key: str | None = KEY) -> None:
        self.data_dir = data_dir
        command = [
            sys.executable,
            "-m",
            "inferno.cli.main",
            "serve",
            "--no-rate-limits",
            "--port",
            "0",
            "--data-dir",
            str(data_dir),
        ]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("INFERNO_")}
        if key is not None:
            environ["INFERNO_API_KEY"] = key
        environ["XDG_CONFIG_HOME"] = str(data_dir)
        # A file, for nobody reads a pipe while the server runs, and a full one would stop it.
        log = data_dir / "server.log"
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, *arguments], env=environ, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline()
        self.curl_line = self.process.stdout.readline()
        match = re.search(r"http://[\w.]+:\d+", self.ready_line)
        if match is None:
            self.process.kill()
            self.process.communicate()
            raise AssertionError(log.read_text())
        self.url = match[0]
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx.Client(base_url=self.url, headers=self.headers, timeout=60)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Ends the server, unless it has ended, and returns its exit status."""
        self.client.close()
        self.process.send_signal(sig)
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        return self.process.returncode

    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("data")
    alias = f"{MODEL}={smollm2}"
    running = Server(data_dir, "--alias", alias, "--model", MODEL, "--parallel", "4", "--context-size", "1024")
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(server: Server) -> httpx.Client:
    return server.client
