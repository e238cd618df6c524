"""What operators do to a server, and what it survives."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import KEY, MODEL, Server
from tests.fakes import PATIENCE_S

LONG = {"model": "m", "prompt": "Once upon a time", "max_tokens": 900, "temperature": 1, "ignore_eos": True}


@pytest.fixture
def own_server(tmp_path: Path, smollm2: Path) -> Iterator[Server]:
    """A server that a test may harm."""
    server = Server(tmp_path, "--alias", f"m={smollm2}", "--parallel", "2", "--context-size", "1024")
    yield server
    server.stop()


def frames_of(lines: Iterator[str]) -> Iterator[dict[str, object]]:
    return (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


@pytest.mark.acceptance("A7", "G1")
def test_the_ready_line_has_a_command_that_works(tmp_path: Path, smollm2: Path) -> None:
    server = Server(tmp_path, "--alias", f"m={smollm2}", "--model", "m", "--context-size", "512", key=None)
    try:
        command = shlex.split(server.curl_line)
        assert json.loads(command[-1])["temperature"] == 0
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert json.loads(answer)["choices"][0]["text"].startswith(" Paris")
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


@pytest.mark.acceptance("A7", "H1")
def test_health_needs_no_key(server: Server) -> None:
    body = httpx.get(f"{server.url}/health").json()
    assert body["status"] == "healthy"
    assert body["models_loaded"] == 1


@pytest.mark.acceptance("G1")
def test_the_server_answers_to_localhost(server: Server) -> None:
    assert server.url.startswith("http://localhost:")


@pytest.mark.acceptance("A5", "A7")
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}])
def test_everything_else_needs_one(server: Server, headers: dict[str, str]) -> None:
    response = httpx.get(f"{server.url}/models", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "AUTHENTICATION_FAILED"


@pytest.mark.acceptance("G3", "T1")
def test_metrics_are_real(server: Server, client: httpx.Client) -> None:
    client.post("/inference", json={"model": MODEL, "prompt": "Hi", "max_tokens": 2})
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    requests = families["inferno_inference_requests"].samples
    assert any(sample.labels == {"model": MODEL} and sample.value >= 1 for sample in requests)
    duration = families["inferno_inference_duration_seconds"]
    buckets = {sample.labels["le"] for sample in duration.samples if sample.name.endswith("_bucket")}
    assert {"0.1", "0.5", "1.0", "+Inf"} <= buckets


@pytest.mark.acceptance("E6", "I5")
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


def loading_worker(server: subprocess.Popen[bytes]) -> int:
    """The process that loads the first model of a server that starts."""
    while server.poll() is None:
        for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                if b"worker_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
    raise AssertionError("the server has ended")


@pytest.mark.acceptance("X4")
def test_sigterm_gives_up_what_is_loaded_at_the_start(tmp_path: Path, smollm2: Path) -> None:
    command = [sys.executable, "-m", "inferno.cli.main", "serve", "--port", "0", "--data-dir", str(tmp_path)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("INFERNO_")} | {"XDG_CONFIG_HOME": str(tmp_path)}
    with subprocess.Popen([*command, "--alias", f"m={smollm2}", "--model", "m"], env=environ) as server:
        worker = loading_worker(server)
        try:
            os.kill(worker, signal.SIGSTOP)  # it would load for ever
            server.send_signal(signal.SIGTERM)
            assert server.wait(2 * PATIENCE_S) == 0
        finally:
            server.kill()
            with contextlib.suppress(ProcessLookupError):  # as it should be
                os.kill(worker, signal.SIGKILL)


@pytest.mark.acceptance("M1", "M2", "M3", "M4", "M5")
def test_load_and_unload(own_server: Server) -> None:
    client = own_server.client
    (unloaded,) = client.get("/models").json()["models"]
    assert (unloaded["loaded"], unloaded["context_size"]) == (False, 8192)
    options = {"context_size": 256, "batch_size": 128, "gpu_layers": 0}
    loaded = client.post("/models/m/load", json=options).json()
    assert client.get("/health").json()["models_loaded"] == 1  # the answer came when it was there
    assert (loaded["status"], loaded["model_id"]) == ("loaded", "m")
    assert loaded["memory_usage_bytes"] > 90_000_000
    assert loaded["load_time_ms"] > 0
    (model,) = client.get("/models").json()["models"]
    assert (model["loaded"], model["context_size"]) == (True, 256)
    (worker,) = own_server.worker_pids()
    assert client.post("/models/m/load", json=options).json() == loaded
    assert client.post("/models/m/load").json() == loaded
    assert own_server.worker_pids() == [worker]
    client.post("/models/m/load", json={**options, "context_size": 128, "gpu_layers": -1})
    assert own_server.worker_pids() != [worker]
    assert client.get("/models").json()["models"][0]["context_size"] == 128
    assert client.post("/models/m/unload").json() == {"status": "unloaded", "model_id": "m"}
    assert own_server.worker_pids() == []
    assert client.post("/models/m/unload").json()["error"]["code"] == "MODEL_NOT_LOADED"


@pytest.mark.acceptance("M5")
def test_unloading_lets_a_text_end(own_server: Server) -> None:
    with own_server.client.stream("POST", "/inference/stream", json={**LONG, "max_tokens": 60}) as response:
        frames = frames_of(response.iter_lines())
        assert "token" in next(frames)
        with ThreadPoolExecutor(1) as thread:
            unloading = thread.submit(own_server.client.post, "/models/m/unload")
            assert list(frames)[-1]["finish_reason"] == "length"
            assert unloading.result().json() == {"status": "unloaded", "model_id": "m"}
    assert own_server.worker_pids() == []


@pytest.mark.acceptance("I5", "S7", "X4")
def test_what_takes_too_long_and_what_is_too_much(tmp_path: Path, smollm2: Path) -> None:
    (tmp_path / "inferno").mkdir()
    (tmp_path / "inferno" / "config.toml").write_text("[server]\nrequest_timeout_s = 1\n")
    options = ("--parallel", "1", "--queue-size", "1", "--context-size", "8192")
    server = Server(tmp_path, "--alias", f"m={smollm2}", "--model", "m", *options)
    body = {**LONG, "max_tokens": 8000}
    try:
        late = server.client.post("/inference", json=body)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "TIMEOUT")
        with server.client.stream("POST", "/inference/stream", json=body) as response:
            assert response.status_code == 200
            *_, last = frames_of(response.iter_lines())
        assert last["error"]["code"] == "TIMEOUT"  # type: ignore[index]
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: server.client.post("/inference", json=body), range(8)))
        outcomes = {answer.json()["error"]["code"]: answer for answer in answers}
        assert outcomes.keys() == {"TIMEOUT", "SERVICE_UNAVAILABLE"}  # one runs, one waits
        assert int(outcomes["SERVICE_UNAVAILABLE"].headers["retry-after"]) >= 1
        assert outcomes["SERVICE_UNAVAILABLE"].status_code == 503
    finally:
        assert server.stop() == 0


@pytest.mark.acceptance("B2", "X4")
def test_what_a_model_cannot_and_what_does_not_fit(tmp_path: Path, smollm2: Path, embed_model: Path) -> None:
    """There is memory for the small model, which only embeds, and not for the other."""
    (tmp_path / "inferno").mkdir()
    (tmp_path / "inferno" / "config.toml").write_text("[models]\nmemory_budget_bytes = '90MiB'\n")
    server = Server(tmp_path, "--alias", f"m={smollm2}", "--alias", f"vectors={embed_model}")
    client = server.client
    try:
        (vector,) = client.post("/embeddings", json={"model": "vectors", "input": "x"}).json()["data"]
        assert len(vector["embedding"]) == 384
        models = {model["id"]: model for model in client.get("/models").json()["models"]}
        assert models["vectors"]["capabilities"] == ["embeddings"]
        cannot = client.post("/inference", json={**LONG, "model": "vectors"})
        assert (cannot.status_code, cannot.json()["error"]["details"]["field"]) == (400, "model")
        refused = client.post("/inference", json={**LONG, "max_tokens": 2})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert refused.json()["error"]["details"]["needed_bytes"] > 90 << 20
        assert int(refused.headers["retry-after"]) >= 1
        assert len(server.worker_pids()) == 1
    finally:
        assert server.stop() == 0


@pytest.mark.acceptance("S6", "X1")
def test_a_broken_file_is_refused_and_harms_nobody(server: Server, tmp_path: Path, smollm2: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "broken.gguf").write_bytes(smollm2.read_bytes()[:5_000_000])
    second = Server(tmp_path, "--models-dir", str(models), "--alias", f"m={smollm2}", "--context-size", "512")
    try:
        response = second.client.post("/models/broken/load")
        assert response.status_code == 400
        assert response.json()["error"]["details"]["field"] == "model"
        assert str(tmp_path) not in response.text
        assert second.client.post("/inference", json={**LONG, "max_tokens": 2}).status_code == 200
    finally:
        assert second.stop() == 0
