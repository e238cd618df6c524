"""What operators do to a server, and what it survives."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import KEY, MODEL, Server

LONG = {"model": "m", "prompt": "Once upon a time", "max_tokens": 900, "temperature": 1, "ignore_eos": True}


@pytest.fixture
def own_server(tmp_path: Path, smollm2: Path) -> Iterator[Server]:
    """A server that a test may harm."""
    server = Server(tmp_path, "--alias", f"m={smollm2}", "--parallel", "2", "--context-size", "1024")
    yield server
    server.stop()


def frames_of(lines: Iterator[str]) -> Iterator[dict[str, object]]:
    return (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def test_the_ready_line_has_a_command_that_works(tmp_path: Path, smollm2: Path) -> None:
    server = Server(tmp_path, "--alias", f"m={smollm2}", "--model", "m", "--context-size", "512", key=None)
    try:
        answer = subprocess.run(shlex.split(server.curl_line), capture_output=True, text=True, check=True).stdout
        assert "Paris" in json.loads(answer)["choices"][0]["text"]
        assert (tmp_path / "api-key").stat().st_mode & 0o777 == 0o600
    finally:
        assert server.stop() == 0


def test_the_line_of_the_api_document_makes_a_key_for_a_running_server(tmp_path: Path) -> None:
    server = Server(tmp_path, "--models-dir", str(tmp_path / "models"), key=None)
    try:
        line = 'inferno security api-key create --user USER_ID --name "My API Key"'
        command = [sys.executable, "-m", "inferno.cli.main", *shlex.split(line)[1:]]
        environ = {**os.environ, "INFERNO_DATA_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        made = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
        assert httpx.get(f"{server.url}/models", headers=headers).status_code == 200
        assert httpx.get(f"{server.url}/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
    finally:
        assert server.stop() == 0


def test_the_first_key_is_shown_in_one_piece(tmp_path: Path) -> None:
    server = Server(tmp_path, "--models-dir", str(tmp_path / "models"), key=None)
    assert server.stop() == 0
    key = (tmp_path / "api-key").read_text().strip()
    assert f"(shown this once): {key}\n" in (tmp_path / "server.log").read_text()


def test_the_command_to_paste_names_a_model_that_is_there(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "house.gguf").write_bytes(tiny_model.read_bytes())
    server = Server(tmp_path, "--models-dir", str(tmp_path / "models"))
    assert server.stop() == 0
    assert '"model": "house"' in server.curl_line


def test_health_needs_no_key(server: Server) -> None:
    body = httpx.get(f"{server.url}/health").json()
    assert body["status"] == "healthy"
    assert body["models_loaded"] == 1


def test_the_server_answers_to_localhost(server: Server) -> None:
    assert server.url.startswith("http://localhost:")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}])
def test_everything_else_needs_one(server: Server, headers: dict[str, str]) -> None:
    response = httpx.get(f"{server.url}/models", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "AUTHENTICATION_FAILED"


def test_metrics_are_real(server: Server, client: httpx.Client) -> None:
    client.post("/inference", json={"model": MODEL, "prompt": "Hi", "max_tokens": 2})
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    requests = families["inferno_inference_requests"].samples
    assert any(sample.labels == {"model": MODEL} and sample.value >= 1 for sample in requests)
    duration = families["inferno_inference_duration_seconds"]
    buckets = {sample.labels["le"] for sample in duration.samples if sample.name.endswith("_bucket")}
    assert {"0.1", "0.5", "1.0", "+Inf"} <= buckets


def test_a_killed_worker_ends_its_stream_and_comes_back(own_server: Server) -> None:
    with own_server.client.stream("POST", "/inference/stream", json=LONG) as response:
        frames = frames_of(response.iter_lines())
        assert "token" in next(frames)
        for pid in own_server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        last = list(frames)[-1]
    assert last["error"]["code"] == "INFERENCE_FAILED"  # type: ignore[index]
    short = {**LONG, "max_tokens": 3}
    code = 503
    while code == 503:  # restarting
        code = own_server.client.post("/inference", json=short).status_code
    assert code == 200


def test_a_worker_knows_no_secrets(server: Server) -> None:
    for pid in server.worker_pids():
        assert KEY not in Path(f"/proc/{pid}/environ").read_text()


def test_sigterm_lets_a_stream_finish(own_server: Server) -> None:
    body = {**LONG, "max_tokens": 60}
    with own_server.client.stream("POST", "/inference/stream", json=body) as response:
        frames = frames_of(response.iter_lines())
        next(frames)
        own_server.process.send_signal(signal.SIGTERM)
        last = list(frames)[-1]
    assert last["finish_reason"] == "length"
    assert own_server.process.wait(30) == 0


def test_load_and_unload(own_server: Server) -> None:
    client = own_server.client
    loaded = client.post("/models/m/load", json={"context_size": 256, "batch_size": 128, "gpu_layers": 0}).json()
    assert loaded["status"] == "loaded"
    assert loaded["memory_usage_bytes"] > 90_000_000
    assert client.get("/models").json()["models"][0]["context_size"] == 256
    assert client.post("/models/m/unload").json() == {"status": "unloaded", "model_id": "m"}
    assert own_server.worker_pids() == []
    assert client.post("/models/m/unload").json()["error"]["code"] == "MODEL_NOT_LOADED"


def test_a_broken_file_is_refused_and_harms_nobody(server: Server, tmp_path: Path, smollm2: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(smollm2.read_bytes()[:5_000_000])
    second = Server(tmp_path, "--alias", f"broken={broken}", "--alias", f"m={smollm2}", "--context-size", "512")
    try:
        response = second.client.post("/models/broken/load")
        assert response.status_code == 400
        assert response.json()["error"]["details"]["field"] == "model"
        assert second.client.post("/inference", json={**LONG, "max_tokens": 2}).status_code == 200
    finally:
        assert second.stop() == 0
