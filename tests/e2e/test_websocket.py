"""W1-W8 on the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import ClientConnection, connect

from tests.e2e.conftest import KEY, MODEL, Server

LONG: dict[str, Any] = {
    "type": "inference",
    "model": MODEL,
    "prompt": "Once upon a time",
    "max_tokens": 900,
    "ignore_eos": True,
}
FRANCE = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}


@pytest.fixture
def talk(server: Server) -> Iterator[ClientConnection]:
    with connect(server.url.replace("http", "ws", 1) + "/ws", proxy=None) as connection:
        send(connection, type="auth", token=KEY)
        assert read(connection)["status"] == "ok"
        yield connection


def send(connection: ClientConnection, **message: Any) -> None:
    connection.send(json.dumps(message))


def read(connection: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(connection.recv(timeout=60)))


def metric(client: httpx.Client, name: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    (family,) = [family for family in families if family.name == name]
    return sum(sample.value for sample in family.samples)


@pytest.mark.acceptance("G3", "W2", "W3", "W8")
def test_two_requests_side_by_side(talk: ClientConnection, client: httpx.Client) -> None:
    send(talk, **LONG, id="long", stream=True)
    assert read(talk)["type"] == "token"
    send(talk, **FRANCE, type="inference", id="short", stream=True)
    texts: dict[str, str] = {"long": "", "short": ""}
    while (message := read(talk))["type"] == "token":
        texts[message["id"]] += message["token"]
    assert (message["type"], message["id"], message["finish_reason"]) == ("complete", "short", "length")
    assert message["text"] == texts["short"]
    assert "Paris" in message["text"]
    assert message["usage"] == {**message["usage"], "prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
    assert texts["long"]
    assert client.post("/inference", json=FRANCE).json()["choices"][0]["text"][:6] == message["text"][:6]


@pytest.mark.acceptance("I4", "W4")
def test_cancelling(talk: ClientConnection) -> None:
    send(talk, **LONG, id="a", stream=True)
    text = read(talk)["token"]
    send(talk, type="cancel", id="a")
    while (message := read(talk))["type"] == "token":
        text += message["token"]
    assert (message["finish_reason"], message["text"]) == ("cancelled", text)
    assert 0 < message["usage"]["completion_tokens"] < 900


@pytest.mark.acceptance("W8")
def test_leaving_frees_the_slots(talk: ClientConnection, client: httpx.Client) -> None:
    before = metric(client, "inferno_engine_completion_tokens")
    for name in ("a", "b"):
        send(talk, **LONG, id=name, stream=True)
        while read(talk)["id"] != name:
            pass
    assert metric(client, "inferno_engine_running_sequences") == 2
    talk.close()
    while metric(client, "inferno_engine_running_sequences") > 0:
        pass
    # They ended early, not because they were complete.
    assert metric(client, "inferno_engine_completion_tokens") - before < LONG["max_tokens"]
