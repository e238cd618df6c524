"""T110: a trace collector that hangs costs no request anything, and does not keep the server from stopping."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from inferno.telemetry import otlp

from tests.collector import HungCollector, exporters_end
from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import AUTH, PROMPT, Live


def test_requests_go_on_and_the_server_stops(
    serve: Callable[..., Live], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = exporters_end(monkeypatch)
    collector = HungCollector()
    live = serve(engine, traces__otlp_endpoint=collector.endpoint)
    try:
        with httpx.Client(base_url=live.url, headers=AUTH, timeout=PATIENCE_S) as client:
            for _ in range(otlp.BATCH):
                client.post("/inference", json=PROMPT).raise_for_status()
            collector.hold()  # from here on the exporter waits
            for _ in range(otlp.BATCH):
                client.post("/inference", json=PROMPT).raise_for_status()
            assert len(client.get("/traces", params={"limit": 1000}).json()["traces"]) == 2 * otlp.BATCH
            assert "inferno_trace_spans_exported_total 0.0" in client.get("/metrics").text
        live.stop()
        assert not ended.is_set()  # it was not waited for
    finally:
        collector.close()
