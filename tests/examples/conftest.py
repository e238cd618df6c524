"""The server that the examples talk to, on the port they name, and a way to run them."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import KEY, MODEL, Server
from tests.examples import toolchains

EXAMPLES = Path(__file__).parents[2] / "examples"
PORT = 8080


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-toolchains", action="store_true", help="fail where a toolchain is missing, do not skip")


@dataclass
class Finished:
    """What an example printed, in the pieces in which it was written to the pipe."""

    pieces: list[bytes]

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode()


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Finished:
    """Run a command to its end and see it succeed."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=env, cwd=cwd) as process,
    ):
        try:
            pieces = list(_pieces(process))
        except BaseException:
            process.kill()
            raise
        status = process.wait()
        log.seek(0)
        assert status == 0, log.read().decode()
    return Finished(pieces)


def _pieces(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert process.stdout is not None
    while piece := os.read(process.stdout.fileno(), 65536):
        yield piece


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, data_dir: Path, smollm2: Path) -> Iterator[Server]:
    """`inferno serve` with the documented port, model id and key; a test may name another key as its parameter."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            pytest.skip(f"port {PORT}, which the examples name, is taken by another program")
    options = ("--port", str(PORT), "--models-dir", str(smollm2.parent), "--alias", f"{MODEL}={smollm2.stem}")
    running = Server(data_dir, *options, "--model", MODEL, key=getattr(request, "param", KEY))
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def tool(request: pytest.FixtureRequest) -> Callable[[Callable[[], Path | None]], Path]:
    """The path that a function of `toolchains` finds; without it the test is skipped, or fails under
    --all-toolchains."""

    def need(find: Callable[[], Path | None]) -> Path:
        if (path := find()) is not None:
            return path
        reason = f"no {find.__name__} here; `make test-examples` fetches it, or says why it cannot"
        if request.config.getoption("--all-toolchains"):
            pytest.fail(reason)
        pytest.skip(reason)

    return need


@pytest.fixture(scope="session")
def node(tool: Callable[..., Path]) -> Path:
    return tool(toolchains.node)
