"""I1-I6: POST /inference."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from inferno import _core, errors
from inferno.request import TextPrompt
from inferno.server.services import Services

from tests.fakes import PROMPT_TOKENS, FakeEngine
from tests.server.conftest import MODEL, PROMPT, sse_data


@pytest.mark.acceptance("I3")
def test_answer_has_the_documented_shape(client: httpx.Client) -> None:
    before = time.time()
    body = client.post("/inference", json=PROMPT).json()
    assert body["id"].startswith("inf_")
    assert body["model"] == "llama-2-7b"
    assert body["choices"] == [{"text": "The capital is Paris.", "index": 0, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9, "cached_tokens": 1}
    assert int(before) <= body["created"] <= time.time()
    assert isinstance(body["processing_time_ms"], int)


@pytest.mark.acceptance("G5")
def test_only_given_fields_reach_the_engine(client: httpx.Client, engine: FakeEngine) -> None:
    client.post("/inference", json={**PROMPT, "top_k": None, "user": "me", "unheard_of": [1]})
    assert engine.next().request.sampling == {}


@pytest.mark.acceptance("I1")
def test_all_documented_fields_reach_the_engine(client: httpx.Client, engine: FakeEngine) -> None:
    fields = {"max_tokens": 100, "top_k": 40, "stop": ["\n", "###"], "seed": 7, "grammar": 'root ::= "a"'}
    client.post("/inference", json={**PROMPT, **fields, "stream": False})
    assert engine.next().request.sampling == fields


@pytest.mark.acceptance("G5")
@pytest.mark.parametrize("temperature", [0.7, 0.699999988, 0.7000000001])
def test_floats_may_have_been_rounded(client: httpx.Client, engine: FakeEngine, temperature: float) -> None:
    assert client.post("/inference", json={**PROMPT, "temperature": temperature}).status_code == 200
    assert engine.next().request.sampling["temperature"] == pytest.approx(0.7)


@pytest.mark.acceptance("G5", "I2")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0),
        ("temperature", 2),
        ("top_p", 0.0),
        ("top_p", 1),
        ("top_k", 0),
        ("max_tokens", 1),
        ("max_tokens", 2_000_000),
        ("max_tokens", 10.0),
        ("stop", "one"),
        ("stop", []),
        ("repeat_penalty", 10),
        ("seed", 0),
    ],
)
def test_bounds_are_inclusive(client: httpx.Client, field: str, value: Any) -> None:
    assert client.post("/inference", json={**PROMPT, field: value}).status_code == 200


@pytest.mark.acceptance("G4", "I2", "S6")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.01),
        ("temperature", -0.1),
        ("temperature", True),
        ("temperature", "0.7"),
        ("temperature", 10**400),
        ("top_p", 1.0000001),
        ("top_k", -1),
        ("top_k", 1.5),
        ("max_tokens", 0),
        ("max_tokens", 2_000_001),
        ("max_tokens", [1]),
        ("repeat_penalty", 0),
        ("stop", [""]),
        ("stop", [1]),
        ("stop", ["x"] * 17),
        ("stop", "x" * 257),
        ("stop", {"a": 1}),
        ("stream", "true"),
        ("stream", 1),
        ("seed", 2**60),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"1": 101}),
        ("logprobs", 21),
        ("grammar", 1),
        ("grammar", "x" * 65537),
        ("model", 1),
        ("model", None),
        ("prompt", ["a"]),
        ("prompt", ""),
        ("json_schema", 1),
        ("json_schema", "x" * 65537),
        ("tools", [{}]),
    ],
)
def test_bad_fields_are_named(client: httpx.Client, field: str, value: Any) -> None:
    response = client.post("/inference", json={**PROMPT, field: value})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "INVALID_REQUEST")
    assert error["details"]["field"].split(".")[0].split("[")[0] == field
    assert field in error["message"]


@pytest.mark.acceptance("I6")
def test_stream_true_streams_as_the_other_path_does(client: httpx.Client) -> None:
    """There the path decides, whatever `stream` says."""
    asked: list[tuple[str, dict[str, Any]]] = [("/inference", {"stream": True})]
    asked += [("/inference/stream", more) for more in ({}, {"stream": True}, {"stream": False}, {"stream": None})]
    streams = []
    for path, more in asked:
        response = client.post(path, json={**PROMPT, **more})
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *frames, end = sse_data(response.text)
        assert end["id"].startswith("inf_")
        streams.append((frames, {**end, "id": "", "processing_time_ms": 0}))
    assert streams == [streams[0]] * len(asked)
    assert streams[0][1]["done"] is True
    for value in ({"stream": False}, {"stream": None}):
        assert "choices" in client.post("/inference", json={**PROMPT, **value}).json()


@pytest.mark.acceptance("I2")
def test_the_defaults_and_ranges_of_the_document() -> None:
    rows = {row["name"]: row for row in _core.sampling_fields()}
    defaults = {"max_tokens": 512, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1}
    assert {name: rows[name]["default"] for name in defaults} == pytest.approx(defaults)
    assert (rows["stop"]["default"], rows["seed"]["default"]) == ([], None)
    ranges = {name: (rows[name]["min"], rows[name]["max"]) for name in ("max_tokens", "temperature", "top_p")}
    assert ranges == {"max_tokens": (1, 2_000_000), "temperature": (0, 2), "top_p": (0, 1)}
    assert rows["top_k"]["min"] == 0
    assert (rows["repeat_penalty"]["min"], rows["repeat_penalty"]["min_exclusive"]) == (0, True)


@pytest.mark.acceptance("I1")
@pytest.mark.parametrize("missing", ["model", "prompt"])
def test_model_and_prompt_are_required(client: httpx.Client, missing: str) -> None:
    response = client.post("/inference", json={key: value for key, value in PROMPT.items() if key != missing})
    assert response.status_code == 400
    assert response.json()["error"]["details"] == {"field": missing}
    assert response.json()["error"]["message"] == f"{missing} is required."


@pytest.mark.acceptance("I1")
def test_the_documented_request(client: httpx.Client, engine: FakeEngine) -> None:
    document = {
        "prompt": "What is the capital of France?",
        "max_tokens": 100,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "repeat_penalty": 1.1,
        "stop": ["\n", "###"],
    }
    assert client.post("/inference", json={"model": "llama-2-7b", "stream": False, **document}).status_code == 200
    request = engine.next().request
    assert request.prompts == [TextPrompt(document.pop("prompt"))]
    assert request.sampling.pop("stop") == document.pop("stop")
    assert request.sampling == pytest.approx(document)


def test_unknown_model(client: httpx.Client) -> None:
    response = client.post("/inference", json={**PROMPT, "model": "gpt-5"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "MODEL_NOT_FOUND")


@pytest.mark.acceptance("E6", "I5", "X4")
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (errors.ContextLengthExceeded("long", field="prompt", prompt_tokens=200, context_size=128), 400),
        (errors.ServiceUnavailable("The queue is full.", retry_after=3), 503),
        (errors.InvalidRequest("grammar does not parse.", field="grammar"), 400),
    ],
)
@pytest.mark.parametrize("path", ["/inference", "/inference/stream", "/v1/chat/completions", "/v1/completions"])
def test_refusals_have_a_status_even_for_streams(
    client: httpx.Client, engine: FakeEngine, refusal: errors.InfernoError, status: int, path: str
) -> None:
    engine.refusal = refusal
    body = {**PROMPT, "messages": [{"role": "user", "content": "x"}], "stream": True}
    response = client.post(path, json=body)
    assert response.status_code == status
    assert response.json()["error"]["code"] == refusal.code
    assert response.json()["error"]["details"] == refusal.details


@pytest.mark.acceptance("I5")
@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [("error", 500, "INFERENCE_FAILED"), ("timeout", 503, "TIMEOUT"), ("cancelled", 503, "SERVICE_UNAVAILABLE")],
)
def test_texts_that_end_badly(client: httpx.Client, engine: FakeEngine, reason: Any, status: int, code: str) -> None:
    engine.reason = reason
    response = client.post("/inference", json=PROMPT)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.acceptance("I4")
def test_length_is_a_finish_reason(client: httpx.Client, engine: FakeEngine) -> None:
    engine.reason = "length"
    assert client.post("/inference", json=PROMPT).json()["choices"][0]["finish_reason"] == "length"


def test_logprobs_are_an_extension(client: httpx.Client) -> None:
    choice = client.post("/inference", json={**PROMPT, "logprobs": 2}).json()["choices"][0]
    first = choice["logprobs"][0]
    assert (first["token"], first["id"], first["logprob"]) == ("The", 7, -0.5)
    assert first["top"][1]["token"] == "\ufffd"


@pytest.mark.acceptance("S7")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/inference", PROMPT),
        ("/inference/stream", PROMPT),
        ("/v1/completions", PROMPT),
        ("/v1/completions", {**PROMPT, "stream": True}),
        ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}),
    ],
)
def test_engine_gets_deadline_and_a_salt_of_the_caller(
    client: httpx.Client, engine: FakeEngine, services: Services, path: str, body: dict[str, Any]
) -> None:
    assert client.post(path, json=body).status_code == 200
    request = engine.next().request
    assert request.timeout_s == services.settings.server.request_timeout_s
    assert request.cache_salt == services.authenticator.salt_of("operator") != 0


def test_the_lease_is_given_back(client: httpx.Client, engine: FakeEngine, services: Services) -> None:
    client.post("/inference", json=PROMPT)
    engine.refusal = errors.InvalidRequest("no")
    client.post("/inference", json=PROMPT)
    assert services.pool.leases == 0  # type: ignore[attr-defined]


def test_tokens_are_counted_once_for_all_choices(client: httpx.Client) -> None:
    usage = client.post("/v1/completions", json={**PROMPT, "n": 3}).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (PROMPT_TOKENS, 15)
