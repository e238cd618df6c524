"""Every documented client against a real server. They run as they stand, with the port, model id and key they name."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import KEY, MODEL, Server
from tests.examples.conftest import EXAMPLES, Finished, run
from tests.examples.toolchains import CACHE, cargo, crates, environment, go

INFERNO = Path(sys.executable).parent / "inferno"

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("server")]


def curl(name: str, key: str = KEY) -> str:
    return run("bash", EXAMPLES / "curl" / f"{name}.sh", env=os.environ | {"API_KEY": key}).text


def documented_models(key: str) -> list[str]:
    """The ids that `key` sees."""
    return [model["id"] for model in json.loads(curl("models", key))["models"]]


def answered(server: Server) -> float:
    """How many texts the server has generated."""
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "inferno_inference_requests_total")


def in_pieces(finished: Finished) -> bool:
    """Each token is written by itself; a reader may find a few of them together, but not all."""
    return len(finished.pieces) >= 5


def says_something(finished: Finished) -> bool:
    return bool(finished.text.strip())


def run_until(holds: Callable[[Finished], bool], *command: str | Path) -> Finished:
    """Run a program that shows a sampled text; again when the model ended it at once, which shows nothing."""
    for _ in range(10):
        finished = run(*command)
        if holds(finished):
            return finished
    pytest.fail(f"not {holds.__name__} in ten runs: {finished.text!r}")


@pytest.mark.acceptance("D1", "E1", "E2", "E3")
def test_python(server: Server) -> None:
    before = answered(server)
    run_until(in_pieces, sys.executable, EXAMPLES / "python" / "simple_and_stream.py")
    assert answered(server) >= before + 2


@pytest.mark.acceptance("O1", "O2", "O4")
def test_openai_package() -> None:
    finished = run_until(in_pieces, sys.executable, EXAMPLES / "python" / "openai_client.py")
    answer, rest = finished.text.split("\nStream: ")
    streamed, vectors = rest.split("\nVectors: ")
    assert answer.removeprefix("Answer: ").strip()
    assert streamed.strip()
    assert json.loads(vectors) == [576, 576]


@pytest.mark.acceptance("D2", "W1", "W2", "W3")
@pytest.mark.parametrize("file", ["typescript/inference.ts", "javascript/inference.js"])
def test_node(server: Server, node: Path, file: str) -> None:
    before = answered(server)
    finished = run_until(in_pieces, node, "--experimental-strip-types", EXAMPLES / file)
    assert finished.text.endswith("\nDone!\n")
    assert answered(server) >= before + 2


@pytest.mark.acceptance("D6", "W1", "W3")
@pytest.mark.parametrize("server", ["YOUR_API_KEY"], indirect=True)
def test_websocket_connection(node: Path) -> None:
    finished = run_until(in_pieces, node, EXAMPLES / "javascript" / "connection.js")
    assert finished.text.rstrip("\n").rsplit("\n", 1)[1] in ("stop", "length")


@pytest.mark.acceptance("A7", "D3", "H1")
def test_curl_health() -> None:
    assert json.loads(curl("health"))["status"] == "healthy"


@pytest.mark.acceptance("D3", "M1")
def test_curl_models() -> None:
    models = {model["id"]: model for model in json.loads(curl("models"))["models"]}
    assert models[MODEL]["loaded"] is True


@pytest.mark.acceptance("D3", "I3")
def test_curl_inference() -> None:
    answer = json.loads(curl("inference"))
    assert answer["model"] == MODEL
    assert isinstance(answer["choices"][0]["text"], str)
    # A small model has nothing to add to "Hello, how are you?" now and then; the end of text is a token too.
    assert 1 <= answer["usage"]["completion_tokens"] <= 50


@pytest.mark.acceptance("D3", "E1", "E2")
def test_curl_stream() -> None:
    frames = [json.loads(event.removeprefix("data: ")) for event in curl("stream").split("\n\n") if event]
    assert [frame["index"] for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert all(frame["token"] for frame in frames[:-1])
    assert frames[-1]["done"] is True
    assert frames[-1]["usage"]["completion_tokens"] >= 1


@pytest.mark.acceptance("D3", "O1")
def test_curl_chat() -> None:
    answer = json.loads(curl("chat"))
    assert answer["object"] == "chat.completion"
    assert isinstance(answer["choices"][0]["message"]["content"], str)
    assert answer["usage"]["completion_tokens"] >= 1


@pytest.mark.acceptance("A2", "A4", "D3")
def test_curl_login(data_dir: Path) -> None:
    create = ("security", "user", "create", "user", "--password", "pass", "--role", "user")
    run(INFERNO, *create, "--data-dir", data_dir)
    assert MODEL in documented_models(json.loads(curl("login"))["token"])


@pytest.mark.acceptance("A1", "A3", "D6")
def test_key_creation(data_dir: Path) -> None:
    paths = {"PATH": f"{INFERNO.parent}:{os.environ['PATH']}", "INFERNO_DATA_DIR": str(data_dir)}
    key = run("bash", EXAMPLES / "security" / "create_api_key.sh", env=os.environ | paths).text.strip()
    assert MODEL in documented_models(key)


@pytest.mark.acceptance("D4")
def test_go(tool: Callable[..., Path]) -> None:
    program = CACHE / "go-example"
    run(tool(go), "build", "-o", program, cwd=EXAMPLES / "go", env=environment())
    run_until(says_something, program)


@pytest.mark.acceptance("D5")
def test_rust(tool: Callable[..., Path]) -> None:
    """Built from a copy, for Cargo writes its lock file beside the manifest."""
    home = CACHE / "rust"
    shutil.copytree(EXAMPLES / "rust", home, dirs_exist_ok=True)
    sources = ('source.crates-io.replace-with="debian"', f'source.debian.directory="{tool(crates)}"')
    options = [part for source in sources for part in ("--config", source)]
    build: list[str | Path] = [
        tool(cargo),
        *options,
        "build",
        "--offline",
        "--quiet",
        "--manifest-path",
        home / "Cargo.toml",
    ]
    run(*build, env=environment())
    run_until(says_something, home / "target" / "debug" / "inferno-example")
