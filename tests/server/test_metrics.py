"""T1, T4: GET /metrics, read with the parser that Prometheus's own client brings, and its JSON twins."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from inferno import errors
from inferno.server.services import Services
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes import FakeEngine
from tests.server.conftest import CHAT, MODEL, PROMPT, make_services


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = client.get("/metrics").text
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    assert len({family.name for family in families}) == len(families)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(client: httpx.Client, name: str, **labels: str) -> float | None:
    return samples(client).get((name, frozenset(labels.items())))


@pytest.mark.acceptance("T1")
def test_media_type(client: httpx.Client) -> None:
    assert client.get("/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.acceptance("T1")
def test_the_documented_lines(client: httpx.Client) -> None:
    client.post("/inference", json=PROMPT)
    lines = client.get("/metrics").text.splitlines()
    assert "# HELP inferno_inference_requests_total Total inference requests" in lines
    assert "# TYPE inferno_inference_requests_total counter" in lines
    assert 'inferno_inference_requests_total{model="llama-2-7b"} 1.0' in lines
    assert "# TYPE inferno_inference_duration_seconds histogram" in lines
    bucket = "inferno_inference_duration_seconds_bucket"
    for bound in ("0.1", "0.5", "1.0"):  # which of them count the request is for the machine's speed to say
        assert any(line.startswith(f'{bucket}{{le="{bound}"}} ') for line in lines)
    assert f'{bucket}{{le="+Inf"}} 1.0' in lines


def test_counters_begin_at_zero(client: httpx.Client) -> None:
    assert value(client, "inferno_inference_requests_total", model=MODEL) == 0


@pytest.mark.acceptance("T1")
@pytest.mark.parametrize(("path", "body"), [("/inference/stream", PROMPT), ("/v1/chat/completions", CHAT)])
def test_requests_tokens_and_latencies(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    client.post(path, json=body)
    assert value(client, "inferno_inference_requests_total", model=MODEL) == 1
    assert value(client, "inferno_tokens_total", model=MODEL, kind="prompt") == 4
    assert value(client, "inferno_tokens_total", model=MODEL, kind="completion") == 5
    assert value(client, "inferno_time_to_first_token_seconds_sum") == pytest.approx(0.021)
    assert value(client, "inferno_inter_token_latency_seconds_sum") == pytest.approx(0.02)


@pytest.mark.acceptance("T1")
def test_failures_count_by_code(client: httpx.Client, engine: FakeEngine) -> None:
    engine.refusal = errors.ContextLengthExceeded("long")
    client.post("/inference", json=PROMPT)
    assert value(client, "inferno_inference_failures_total", model=MODEL, code="CONTEXT_LENGTH_EXCEEDED") == 1
    assert value(client, "inferno_inference_requests_total", model=MODEL) == 1
    assert value(client, "inferno_inference_duration_seconds_count") == 0


def test_clients_do_not_make_labels(client: httpx.Client) -> None:
    for index in range(50):
        client.post("/inference", json={**PROMPT, "model": f"made-up-{index}"})
    assert value(client, "inferno_inference_requests_total", model="other") == 50
    assert not [key for key in samples(client) if "made-up" in str(key)]


def test_engines_tell_of_themselves(client: httpx.Client) -> None:
    client.post(f"/models/{MODEL}/load")
    assert value(client, "inferno_engine_running_sequences", model=MODEL) == 1
    assert value(client, "inferno_engine_rows_total", model=MODEL) == 40
    assert value(client, "inferno_engine_busy_seconds_total", model=MODEL) == 1.5
    assert value(client, "inferno_engine_kv_tokens_capacity", model=MODEL) == 128
    assert value(client, "inferno_model_loaded", model=MODEL) == 1
    assert value(client, "inferno_worker_restarts_total", model=MODEL) == 2
    assert value(client, "inferno_engine_gpu_layers", model=MODEL) == 2
    assert value(client, "inferno_engine_device_memory_bytes", model=MODEL, device="Fake0") == 1000


def test_the_server_tells_of_itself(client: httpx.Client, services: Services) -> None:
    assert value(client, "inferno_build_info", version=services.version) == 1
    assert value(client, "inferno_device_memory_bytes", device="Fake0") == 8000
    assert value(client, "inferno_start_time_seconds") == pytest.approx(time.time(), abs=600)
    assert value(client, "inferno_draining") == 0
    services.pool.begin_closing()
    assert value(client, "inferno_draining") == 1


def test_the_state_of_models(client: httpx.Client, engine: FakeEngine) -> None:
    client.post(f"/models/{MODEL}/load")
    for state, loaded in (("ready", 1), ("restarting", None)):
        engine.state = state
        assert value(client, "inferno_model_state", model=MODEL, state=state) == 1
        assert value(client, "inferno_model_loaded", model=MODEL) == loaded
    assert [
        labels for name, labels in samples(client) if name == "inferno_model_state" and ("model", MODEL) not in labels
    ] == []
    assert value(client, "inferno_model_load_progress", model=MODEL) == 1
    assert value(client, "inferno_model_context_size", model=MODEL) == 128
    assert value(client, "inferno_model_active_requests", model=MODEL) == 0


def test_two_servers_do_not_share(services: Services, engine: FakeEngine) -> None:
    assert make_services(engine).metrics is not services.metrics


# ---- T106: series are bounded, whatever clients say ----


def test_random_requests_make_a_bounded_number_of_series(client: httpx.Client) -> None:
    rng = random.Random(106)
    reached = 0

    def word() -> str:
        return "".join(rng.choices(string.ascii_letters + string.digits + '-._~{}"\\', k=12))

    client.post("/inference", json=PROMPT)
    before = len(samples(client))
    for index in range(400):
        headers = {"User-Agent": word(), "X-Request-ID": f"r{index}", "API-Version": rng.choice(["1", "v9"])}
        client.request(rng.choice(["GET", "POST", "PUT", "BREW"]), f"/{word()}/{word()}", headers=headers)
        client.post(f"/models/{word()}/load", json={}, headers=headers)
        reached += client.post("/inference", json={**PROMPT, "model": word()}, headers=headers).status_code == 404
    # What may be new: failures of `other`, by code.
    assert len(samples(client)) <= before + 5
    assert value(client, "inferno_inference_requests_total", model="other") == reached > 100


def test_custom_series_are_bounded(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, metrics__custom_series=100))
    before = len(samples(client))
    kinds = ("gauge", "counter", "histogram")
    bodies = [{"name": f"m{i}", "type": kinds[i % 3], "value": i, "labels": {"l": f"v{i}"}} for i in range(300)]
    statuses = [client.post("/metrics/custom", json=body).status_code for body in bodies]
    assert set(statuses) == {200, 400}
    assert len(samples(client)) == before + 100


# ---- T4: the same as JSON ----


@pytest.mark.acceptance("T4")
def test_json_has_the_same_samples(client: httpx.Client, engine: FakeEngine) -> None:
    client.post("/inference", json=PROMPT)
    client.post("/embeddings", json={"model": MODEL, "input": "x"})
    engine.refusal = errors.ContextLengthExceeded("long")
    client.post("/inference", json=PROMPT)
    for kind in ("gauge", "counter", "histogram"):
        client.post(
            "/metrics/custom", json={"name": f"my_{kind}_total", "type": kind, "value": 2, "labels": {"a": "b"}}
        )
    families = client.get("/metrics/json").json()["metrics"]
    as_json = {
        (sample["name"], frozenset(sample["labels"].items())): sample["value"]
        for family in families
        for sample in family["samples"]
    }
    assert as_json == samples(client)


@pytest.mark.acceptance("T4")
def test_json_has_the_same_families(client: httpx.Client) -> None:
    client.post("/metrics/custom", json={"name": "jobs", "type": "counter", "value": 2})
    text = client.get("/metrics").text.splitlines()
    for family in client.get("/metrics/json").json()["metrics"]:
        assert f"# TYPE {family['name']} {family['type']}" in text
        assert f"# HELP {family['name']} {family['help']}" in text


@pytest.mark.acceptance("T4")
def test_snapshot(client: httpx.Client, engine: FakeEngine) -> None:
    client.post("/inference", json=PROMPT)
    client.post("/inference", json={**PROMPT, "model": "made-up"})
    snapshot = client.get("/metrics/snapshot").json()
    counts = {
        "requests": {"total": 1, "failed": 0},
        "tokens": {"prompt": 4, "completion": 5},
        "running": 1,
        "waiting": 0,
        "kv_tokens": {"used": 7, "total": 128},
    }
    nothing = {
        "requests": {"total": 0, "failed": 0},
        "tokens": {"prompt": 0, "completion": 0},
        "running": 0,
        "waiting": 0,
        "kv_tokens": {"used": 0, "total": 0},
    }
    assert snapshot["models"] == [
        {"id": MODEL, "state": "ready", **counts},
        {"id": "org/name", "state": "unloaded", **nothing},
    ]
    assert {key: snapshot[key] for key in counts} == {**counts, "requests": {"total": 2, "failed": 1}}
    assert snapshot["time_to_first_token_ms"]["p50"] == pytest.approx(17.5)  # 21 ms: the bucket is 10 to 25
    assert snapshot["inter_token_latency_ms"]["p95"] == pytest.approx(24.25)  # 20 ms: the same bounds
    assert snapshot["timestamp"].endswith("Z")
    assert 0 <= snapshot["uptime_seconds"] < 600


def test_snapshot_of_an_idle_server(client: httpx.Client) -> None:
    snapshot = client.get("/metrics/snapshot").json()
    assert snapshot["time_to_first_token_ms"] == {"p50": None, "p95": None}
    assert snapshot["requests"] == {"total": 0, "failed": 0}


@pytest.mark.acceptance("T4")
def test_status(client: httpx.Client, services: Services) -> None:
    client.post("/inference", json=PROMPT)
    status = client.get("/v1/status").json()
    assert (status["status"], status["version"]) == ("serving", services.version)
    assert [(model["id"], model["state"]) for model in status["models"]] == [(MODEL, "ready"), ("org/name", "unloaded")]
    assert status["models"][0]["restarts"] == 2
    assert (status["models"][0]["gpu_layers"], status["models"][0]["device_bytes"]) == (2, {"Fake0": 1000})
    assert [(device["name"], device["used_bytes"]) for device in status["devices"]] == [("Fake0", 1000)]
    assert status["models"][0]["context_size"] == 128
    services.pool.begin_closing()
    assert client.get("/status").json()["status"] == "draining"
