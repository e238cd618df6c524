"""T110: spans go to a collector, and one that hangs changes nothing."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from inferno import errors
from inferno.config import TraceSettings
from inferno.telemetry import otlp
from inferno.telemetry.origin import Origin
from inferno.telemetry.traces import Traces

from tests.collector import PATIENCE_S, Collector, HungCollector, exporters_end

PARENT = "b7ad6b7169203331"
ORIGIN = Origin(
    user_id="secret-caller",
    request_id="req_1",
    traceparent=f"00-0af7651916cd43dd8448eb211c80319c-{PARENT}-01",
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def exporting(stack: ExitStack) -> Callable[[str], Traces]:
    """Makes traces that go to an endpoint; what they wait for at the end is given up."""

    def make(endpoint: str) -> Traces:
        made = Traces(TraceSettings(capacity=10, sample_ratio=1.0, otlp_endpoint=endpoint))
        stack.callback(lambda: asyncio.run(made.close(0.0)))
        return made

    return make


def write(traces: Traces, n: int = 1) -> None:
    for _ in range(n):
        traces.record("inference.m", ORIGIN, (10**18, 10**18 + 5), {"gen_ai.request.model": "m"}, None)


def counts(traces: Traces) -> dict[str, float]:
    samples = [sample for family in traces.collect() for sample in family.samples]
    return {sample.labels.get("reason", "exported"): sample.value for sample in samples}


def test_a_collector_gets_the_spans(stack: ExitStack, exporting: Callable[[str], Traces]) -> None:
    collector = Collector()
    stack.callback(collector.close)
    traces = exporting(collector.endpoint)
    write(traces, 3)
    asyncio.run(traces.close(PATIENCE_S))
    path, request = collector.next()
    (resource_spans,) = request.resource_spans
    resource = {item.key: item.value.string_value for item in resource_spans.resource.attributes}
    spans = resource_spans.scope_spans[0].spans
    assert path == "/v1/traces"
    assert resource["service.name"] == "inferno"
    assert [span.name for span in spans] == ["inference.m"] * 3
    assert spans[0].parent_span_id.hex() == PARENT
    assert spans[0].end_time_unix_nano - spans[0].start_time_unix_nano == 5
    assert "secret-caller" not in str(request)
    assert counts(traces) == {"exported": 3, "queue_full": 0, "failed": 0}


def test_a_collector_that_refuses(
    stack: ExitStack, exporting: Callable[[str], Traces], caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector(400)
    stack.callback(collector.close)
    traces = exporting(collector.endpoint)
    write(traces, 2)
    asyncio.run(traces.close(PATIENCE_S))
    assert counts(traces) == {"exported": 0, "queue_full": 0, "failed": 2}
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_a_collector_that_hangs(
    stack: ExitStack, exporting: Callable[[str], Traces], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = exporters_end(monkeypatch)
    collector = HungCollector()
    stack.callback(collector.close)
    traces = exporting(collector.endpoint)
    write(traces, otlp.BATCH)
    collector.hold()  # the first batch is on its way, and stays there
    write(traces, otlp.MAX_WAITING + 10)
    assert counts(traces) == {"exported": 0, "queue_full": 10, "failed": 0}
    asyncio.run(traces.close(0.1))
    assert not ended.is_set()  # it was not waited for
    assert len(traces.newest(100)) == 10


def test_without_the_exporters_package(monkeypatch: pytest.MonkeyPatch, exporting: Callable[[str], Any]) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(errors.InvalidRequest, match=r"inferno-server\[otlp\]") as caught:
        exporting("http://127.0.0.1:1/v1/traces")
    assert caught.value.field == "traces.otlp_endpoint"


_BAD_HEADERS = """
from inferno.config import TraceSettings
from inferno.telemetry import logs
from inferno.telemetry.origin import Origin
from inferno.telemetry.traces import Traces
logs.configure("debug", "text")
traces = Traces(TraceSettings(capacity=1, sample_ratio=1.0, otlp_endpoint=""))
parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
for given, state in ((parent, "flood,=,"), ("flood" * 100, ""), (parent, "flood" * 1000)):
    traces.record("x", Origin(user_id="", request_id="", traceparent=given, tracestate=state), (1, 2), {}, None)
"""


def test_clients_cannot_fill_the_log_with_bad_headers() -> None:
    result = subprocess.run([sys.executable, "-c", _BAD_HEADERS], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
