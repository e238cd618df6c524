"""T2: GET /traces."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from inferno import errors
from inferno.identity.api_keys import create_key
from inferno.identity.users import create_user
from inferno.store.database import Database
from opentelemetry import trace
from sqlalchemy import Connection

from tests.fakes import FakeEngine
from tests.server.conftest import CHAT, KEY, MODEL, PROMPT, make_services

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
EMBED = {"model": MODEL, "input": "x"}
INFERENCES = [
    ("/inference", PROMPT),
    ("/inference/stream", PROMPT),
    ("/v1/chat/completions", CHAT),
    ("/embeddings", EMBED),
]


def traces(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    return list(client.get("/traces", params=query).json()["traces"])


@pytest.mark.acceptance("T2")
def test_the_documented_fields(client: httpx.Client) -> None:
    before = time.time()
    client.post("/inference", json=PROMPT)
    (span,) = traces(client)
    assert re.fullmatch("[0-9a-f]{32}", span["trace_id"])
    assert re.fullmatch("[0-9a-f]{16}", span["span_id"])
    assert span["operation_name"] == "inference.llama-2-7b"
    assert span["start_time"].endswith("Z")
    assert before - 1 <= datetime.fromisoformat(span["start_time"]).timestamp() <= time.time()
    assert isinstance(span["duration_ms"], int)
    assert 0 <= span["duration_ms"] <= (time.time() - before) * 1000 + 1
    assert (span["status"], span["parent_span_id"]) == ("ok", None)


@pytest.mark.acceptance("T2")
@pytest.mark.parametrize(("path", "body"), INFERENCES)
def test_every_inference_has_a_span_in_the_callers_trace(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "X-Request-ID": "mine-7"}
    client.post(path, json=body, headers=headers)
    (span,) = traces(client)
    assert (span["trace_id"], span["parent_span_id"]) == (TRACE, PARENT)
    assert span["span_id"] != PARENT
    assert span["attributes"]["inferno.request_id"] == "mine-7"


def test_attributes_of_a_chat(client: httpx.Client) -> None:
    body = {**CHAT, "temperature": 0.7, "max_tokens": 9, "n": 2, "seed": 3, "stop": "canary"}
    answer = client.post("/v1/chat/completions", json=body).json()
    attributes = traces(client)[0]["attributes"]
    expected = {
        "gen_ai.provider.name": "inferno",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 3,
        "gen_ai.response.id": answer["id"],
        "gen_ai.response.finish_reasons": ["stop", "stop"],
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 1,
        "inferno.queue_ms": 1,
        "inferno.prefill_ms": 20,
        "inferno.decode_ms": 80,
    }
    assert attributes == attributes | expected


def test_attributes_of_a_stream_and_of_embeddings(client: httpx.Client) -> None:
    client.post("/inference/stream", json=PROMPT)
    client.post("/embeddings", json=EMBED)
    embedded, streamed = (span["attributes"] for span in traces(client))
    assert streamed["gen_ai.operation.name"] == "text_completion"
    assert streamed["gen_ai.response.finish_reasons"] == ["stop"]
    assert streamed["gen_ai.usage.output_tokens"] == 5
    assert embedded["gen_ai.operation.name"] == "embeddings"
    assert embedded["gen_ai.usage.input_tokens"] == 3


@pytest.mark.acceptance("T2")
def test_newest_first_up_to_the_limit(client: httpx.Client) -> None:
    for index in range(105):
        client.post("/inference", json=PROMPT, headers={"X-Request-ID": f"r{index}"})
    ids = [span["attributes"]["inferno.request_id"] for span in traces(client)]
    assert ids == [f"r{index}" for index in range(104, 4, -1)]
    assert [span["attributes"]["inferno.request_id"] for span in traces(client, limit=2)] == ["r104", "r103"]
    assert len(traces(client, limit=1000)) == 105


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1.5", "", "many", "+5", "1_0", "\u0665", "9" * 5000])
def test_bad_limits(client: httpx.Client, limit: str) -> None:
    response = client.get("/traces", params={"limit": limit})
    assert response.status_code == 400
    assert response.json()["error"]["details"]["field"] == "limit"


@pytest.mark.acceptance("T2")
def test_only_so_many_are_kept(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, traces__capacity=3))
    for index in range(5):
        client.post("/inference", json=PROMPT, headers={"X-Request-ID": f"r{index}"})
    assert [span["attributes"]["inferno.request_id"] for span in traces(client)] == ["r4", "r3", "r2"]


@pytest.mark.acceptance("T2")
def test_failures(client: httpx.Client, engine: FakeEngine) -> None:
    engine.refusal = errors.ContextLengthExceeded("long")
    client.post("/inference", json=PROMPT)
    (span,) = traces(client)
    assert span["status"] == "error"
    assert span["attributes"]["error.type"] == "CONTEXT_LENGTH_EXCEEDED"


def test_a_stream_that_breaks_is_an_error(client: httpx.Client, engine: FakeEngine) -> None:
    engine.reason = "error"
    assert client.post("/inference/stream", json=PROMPT).status_code == 200
    assert traces(client)[0]["attributes"]["error.type"] == "INFERENCE_FAILED"


def test_clients_do_not_make_names(client: httpx.Client) -> None:
    client.post("/inference", json={**PROMPT, "model": "made-up"})
    response = client.get("/traces")
    (span,) = response.json()["traces"]
    assert span["operation_name"] == "inference.other"
    assert span["attributes"]["gen_ai.request.model"] == "other"
    assert "made-up" not in response.text


def test_no_prompts_texts_or_keys(client: httpx.Client) -> None:
    body = {"model": MODEL, "prompt": "canary prompt", "stop": ["canary stop"], "grammar": 'root ::= "canary"'}
    client.post("/inference", json=body, headers={"baggage": "canary=1", "tracestate": "v=canary"})
    text = client.get("/traces").text
    assert "canary" not in text
    assert KEY not in text
    assert "Paris" not in text


# ---- trace context ----


@pytest.mark.acceptance("T2")
@pytest.mark.parametrize(
    "value",
    [
        "garbage",
        TRACEPARENT.upper(),
        TRACEPARENT.replace(TRACE, "0" * 32),
        TRACEPARENT.replace(PARENT, "0" * 16),
        "ff" + TRACEPARENT[2:],
        TRACEPARENT[:-1],
        TRACEPARENT + "-more",
        f"{TRACEPARENT},{TRACEPARENT}",
        TRACEPARENT.replace("a", "g"),
        "01" + TRACEPARENT[2:] + "-" + "x" * 65536,
        "\u00e9" * 64,
        "",
    ],
    ids=lambda value: value[:24],
)
def test_a_malformed_traceparent_begins_a_new_trace(client: httpx.Client, value: str) -> None:
    response = client.post("/inference", json=PROMPT, headers={"traceparent": value.encode("latin-1")})
    assert response.status_code == 200
    (span,) = traces(client)
    assert span["trace_id"] != TRACE
    assert span["parent_span_id"] is None


def test_two_traceparents_are_none(client: httpx.Client) -> None:
    headers = [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)]
    client.post("/inference", json=PROMPT, headers=httpx.Headers([*client.headers.multi_items(), *headers]))
    assert traces(client)[0]["trace_id"] != TRACE


@pytest.mark.parametrize("state", ["garbage", "a=" + "x" * 65536, ",".join(f"k{i}=1" for i in range(100)), "=,=,="])
def test_a_malformed_tracestate_is_ignored(client: httpx.Client, state: str) -> None:
    client.post("/inference", json=PROMPT, headers={"traceparent": TRACEPARENT, "tracestate": state})
    assert traces(client)[0]["trace_id"] == TRACE


def test_the_caller_decides_about_sampling(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, traces__sample_ratio=0.0))
    client.post("/inference", json=PROMPT)
    client.post("/inference", json=PROMPT, headers={"traceparent": TRACEPARENT[:-1] + "0"})
    assert traces(client) == []
    client.post("/inference", json=PROMPT, headers={"traceparent": TRACEPARENT})
    assert [span["trace_id"] for span in traces(client)] == [TRACE]


def test_the_process_wide_tracer_is_not_touched(client: httpx.Client) -> None:
    client.post("/inference", json=PROMPT)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


# ---- who sees what ----


def create_keys(connection: Connection) -> dict[str, str]:
    """Keys of users, who may see traces, and of one who may also read the metrics of all. Ann has two."""
    users = {name: create_user(connection, name, role="user") for name in ("ann", "bob", "eve")}
    users["boss"] = create_user(connection, "boss", role="service")
    keys = {name: create_key(connection, user, "key")[0] for name, user in users.items()}
    return {**keys, "ann again": create_key(connection, users["ann"], "key")[0]}


@pytest.mark.acceptance("T2")
def test_callers_see_their_own(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    database = Database("")
    keys = database.write_now(create_keys)
    client = connect(make_services(engine, database=database), {})
    for name in ("ann", "bob", "ann again"):
        headers = {"X-API-Key": keys[name], "X-Request-ID": name.replace(" ", "-")}
        assert client.post("/inference", json=PROMPT, headers=headers).status_code == 200

    def seen(name: str, **query: int) -> list[str]:
        spans = client.get("/traces", params=query, headers={"X-API-Key": keys[name]}).json()["traces"]
        return [span["attributes"]["inferno.request_id"] for span in spans]

    assert seen("ann") == seen("ann again") == ["ann-again", "ann"]
    assert seen("bob", limit=1) == ["bob"]  # the limit counts one's own
    assert seen("eve") == []
    assert seen("boss") == ["ann-again", "bob", "ann"]
    database.close()
