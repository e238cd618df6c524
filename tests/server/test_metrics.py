"""T1: GET /metrics, read with the parser that Prometheus's own client brings."""

from __future__ import annotations

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


def test_media_type(client: httpx.Client) -> None:
    assert client.get("/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_the_documented_lines(client: httpx.Client) -> None:
    client.post("/inference", json=PROMPT)
    lines = client.get("/metrics").text.splitlines()
    assert "# HELP inferno_inference_requests_total Total inference requests" in lines
    assert "# TYPE inferno_inference_requests_total counter" in lines
    assert 'inferno_inference_requests_total{model="llama-2-7b"} 1.0' in lines
    assert "# TYPE inferno_inference_duration_seconds histogram" in lines
    for bound in ("0.1", "0.5", "1.0", "+Inf"):
        assert f'inferno_inference_duration_seconds_bucket{{le="{bound}"}} 1.0' in lines


def test_counters_begin_at_zero(client: httpx.Client) -> None:
    assert value(client, "inferno_inference_requests_total", model=MODEL) == 0


@pytest.mark.parametrize(("path", "body"), [("/inference/stream", PROMPT), ("/v1/chat/completions", CHAT)])
def test_requests_tokens_and_latencies(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    client.post(path, json=body)
    assert value(client, "inferno_inference_requests_total", model=MODEL) == 1
    assert value(client, "inferno_tokens_total", model=MODEL, kind="prompt") == 4
    assert value(client, "inferno_tokens_total", model=MODEL, kind="completion") == 5
    assert value(client, "inferno_time_to_first_token_seconds_sum") == pytest.approx(0.021)
    assert value(client, "inferno_inter_token_latency_seconds_sum") == pytest.approx(0.02)


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
    assert value(client, "inferno_engine_kv_tokens_capacity", model=MODEL) == 128
    assert value(client, "inferno_model_loaded", model=MODEL) == 1
    assert value(client, "inferno_worker_restarts_total", model=MODEL) == 2


def test_two_servers_do_not_share(services: Services, engine: FakeEngine) -> None:
    assert make_services(engine).metrics is not services.metrics
