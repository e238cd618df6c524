"""The small costs of serving a token, with pytest-benchmark: `pytest benchmarks --benchmark-enable`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from inferno import _core
from inferno.config import TraceSettings
from inferno.engine import frames
from inferno.request import Delta, Request, TextPrompt, Timings, Usage
from inferno.server.sse import encode_frames
from inferno.server.strict_json import parse_json
from inferno.telemetry.metrics import Metrics
from inferno.telemetry.observation import Observation
from inferno.telemetry.origin import Origin
from inferno.telemetry.traces import Traces

from tests.models import generation_model

BODY = json.dumps({"model": "m", "prompt": "word " * 2000, "max_tokens": 100, "temperature": 0.7}).encode()


@pytest.fixture(scope="module")
def core() -> Any:
    engine = _core.Engine(str(generation_model()), {"context_size": 512, "parallel": 1})
    yield engine
    engine.close()


def test_parse_a_10_kb_body(benchmark: Any) -> None:
    assert benchmark(parse_json, BODY)["max_tokens"] == 100


def test_validate_sampling(benchmark: Any) -> None:
    assert benchmark(_core.validate_sampling, {"temperature": 0.7, "top_p": 0.9, "stop": ["a", "b"]})


def test_encode_one_sse_frame(benchmark: Any) -> None:
    assert benchmark(encode_frames, [{"token": " Paris", "index": 3}]).startswith(b"data: ")


def test_decode_a_worker_frame_of_16_events(benchmark: Any) -> None:
    body = msgspec.msgpack.encode(frames.Events([Delta(i, " token", 1) for i in range(16)]))
    decoder = msgspec.msgpack.Decoder(frames.Events)
    assert len(benchmark(decoder.decode, body).events) == 16


def test_observe_one_inference(benchmark: Any) -> None:
    """Metrics and a span in the caller's trace: once for each request."""
    metrics = Metrics()
    traces = Traces(TraceSettings(capacity=1000, sample_ratio=1.0, otlp_endpoint=""))
    sampling = {"max_tokens": 100, "temperature": 0.7, "top_p": 0.9, "top_k": 40}
    request = Request(model="m", prompts=[TextPrompt("x")], sampling=sampling)
    origin = Origin(user_id="c", request_id="req_1", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")

    def observe() -> None:
        with Observation(metrics, traces, request, origin) as observed:
            observed.admitted()
            observed.sequence(Timings(1, 2, 3), Usage(10, 100, 5), "stop")
            observed.usage(Usage(10, 100, 5))

    benchmark(observe)
    assert traces.newest(1)[0]["status"] == "ok"


def test_tokenize_1000_words(benchmark: Any, core: Any) -> None:
    assert len(benchmark(core.tokenize, "The quick brown fox jumps. " * 200)) > 1000


def test_inspect_a_model_file(benchmark: Any) -> None:
    path: Path = generation_model()
    assert benchmark(_core.inspect_model, str(path))["n_vocab"] > 0
