"""What one inference tells metrics and traces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from inferno import errors
from inferno.config import TraceSettings
from inferno.request import ChatPrompt, Message, Request, TextPrompt, Timings, Usage
from inferno.telemetry.metrics import Metrics
from inferno.telemetry.observation import Observation
from inferno.telemetry.origin import Origin
from inferno.telemetry.traces import Traces

REQUEST = Request(model="m", prompts=[TextPrompt("canary")])
ORIGIN = Origin(user_id="ann", request_id="req_1")


class Observer:
    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics()
        self.traces = Traces(TraceSettings(**{"capacity": 9, "sample_ratio": 1.0, "otlp_endpoint": "", **settings}))

    def observe(self, request: Request = REQUEST, origin: Origin = ORIGIN) -> Observation:
        return Observation(self.metrics, self.traces, request, origin)

    def span(self) -> dict[str, Any]:
        (span,) = self.traces.newest(10)
        return span

    def value(self, name: str, **labels: str) -> float | None:
        for family in self.metrics.families():
            for sample in family.samples:
                if (sample.name, sample.labels) == (name, labels):
                    return float(sample.value)
        return None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RequestTimeout("late"), "TIMEOUT"),
        (asyncio.CancelledError(), "CLIENT_LEFT"),
        (ConnectionResetError(), "CLIENT_LEFT"),
        (ValueError("canary"), "INTERNAL_ERROR"),
    ],
    ids=lambda value: str(value),
)
def test_how_it_can_fail(error: BaseException, code: str) -> None:
    observer = Observer()
    observer.metrics.know(["m"])
    with pytest.raises(type(error)), observer.observe():
        raise error
    assert observer.span()["attributes"]["error.type"] == code
    assert observer.span()["status"] == "error"
    assert "canary" not in str(observer.span())
    assert observer.value("inferno_inference_failures_total", model="m", code=code) == 1
    assert observer.value("inferno_inference_requests_total", model="m") == 1
    assert observer.value("inferno_inference_duration_seconds_count") == 0


@pytest.mark.parametrize("awaited", [True, False])
def test_how_it_can_succeed(awaited: bool) -> None:
    observer = Observer()
    with observer.observe(origin=Origin(user_id="ann", request_id="req_1", awaited=awaited)) as observed:
        observed.admitted()
        observed.sequence(Timings(1, 2, 3), Usage(4, 5, 6), "length")
        observed.usage(Usage(4, 5, 6))
    assert observer.span()["status"] == "ok"
    for name in ("inference_duration", "time_to_first_token", "inter_token_latency"):
        assert observer.value(f"inferno_{name}_seconds_count") == int(awaited)
    assert observer.value("inferno_inference_requests_total", model="m") == 1
    assert observer.value("inferno_tokens_total", model="m", kind="completion") == 5


def test_a_model_is_named_only_when_it_is_ours() -> None:
    observer = Observer()
    with observer.observe():
        pass
    assert observer.span()["operation_name"] == "inference.other"


def test_attributes_do_not_grow_with_the_request() -> None:
    observer = Observer()
    sampling: dict[str, Any] = {"temperature": 0.699999988079071, "stop": ["canary"] * 16, "grammar": "canary"}
    request = Request(model="m", prompts=[ChatPrompt([Message("user", "canary")])] * 64, n=8, sampling=sampling)
    with observer.observe(request) as observed:
        for _ in range(512):
            observed.sequence(Timings(), Usage(1, 1), "stop")
    attributes = observer.span()["attributes"]
    assert attributes["gen_ai.request.temperature"] == 0.7
    assert len(attributes["gen_ai.response.finish_reasons"]) == 16
    assert "canary" not in str(attributes)


@pytest.mark.parametrize("settings", [{"capacity": 0}, {"sample_ratio": 0.0}])
def test_nothing_is_kept(settings: dict[str, Any]) -> None:
    observer = Observer(**settings)
    with observer.observe():
        pass
    assert observer.traces.newest(10) == []
    assert observer.value("inferno_inference_requests_total", model="other") == 1
