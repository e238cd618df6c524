"""Metrics and traces of real inferences."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.collector import Collector
from tests.e2e.conftest import MODEL, Server


@pytest.mark.acceptance("T2")
def test_a_trace_tells_of_the_inference(client: httpx.Client) -> None:
    prompt = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    response = client.post("/inference", json=prompt)
    usage = response.json()["usage"]
    (span,) = client.get("/traces", params={"limit": 1}).json()["traces"]
    attributes = span["attributes"]
    assert span["operation_name"] == f"inference.{MODEL}"
    assert attributes["inferno.request_id"] == response.headers["x-request-id"]
    assert attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert attributes["gen_ai.request.temperature"] == 0
    assert 0 < attributes["inferno.decode_ms"] <= span["duration_ms"] + 1


@pytest.mark.acceptance("T1", "T3")
def test_metrics_of_the_server_and_of_clients(client: httpx.Client) -> None:
    body = {"name": "custom_metric", "value": 42.5, "type": "gauge", "labels": {"environment": "production"}}
    assert client.post("/metrics/custom", json=body).status_code == 200
    text = client.get("/metrics").text
    assert 'custom_metric{environment="production"} 42.5' in text.splitlines()
    assert len(list(text_string_to_metric_families(text))) > 20


def test_spans_reach_a_collector_before_the_server_is_gone(tmp_path: Path, smollm2: Path) -> None:
    collector = Collector()
    (tmp_path / "inferno").mkdir()
    (tmp_path / "inferno" / "config.toml").write_text(f'[traces]\notlp_endpoint = "{collector.endpoint}"\n')
    server = Server(tmp_path, "--alias", f"m={smollm2}", "--context-size", "512")
    try:
        server.client.post("/inference", json={"model": "m", "prompt": "Once", "max_tokens": 2}).raise_for_status()
    finally:
        status = server.stop()
        collector.close()
    assert status == 0
    _, request = collector.next()
    assert request.resource_spans[0].scope_spans[0].spans[0].name == "inference.m"
