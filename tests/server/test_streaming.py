"""E1-E6: server-sent events over a real connection."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
import sseclient

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import AUTH, CHAT, PROMPT, Live, sse_data


@contextlib.contextmanager
def stream(live: Live, path: str = "/inference/stream", **fields: Any) -> Iterator[Iterator[str]]:
    """Lines of a stream as they come."""
    body = {**PROMPT, **CHAT, **fields}
    with httpx.stream("POST", live.url + path, json=body, headers=AUTH, timeout=PATIENCE_S) as response:
        assert response.status_code == 200
        yield response.iter_lines()


@pytest.mark.acceptance("E2", "E3")
def test_frames_are_separate_events(live: Live) -> None:
    live.engine.pieces = ("Hel", "lo")
    response = requests.post(f"{live.url}/inference/stream", json=PROMPT, headers=AUTH, stream=True, timeout=PATIENCE_S)
    events = list(sseclient.SSEClient(response).events())  # type: ignore[arg-type]
    assert {event.event for event in events} == {"message"}
    data = [json.loads(event.data) for event in events]
    assert "".join(frame["token"] for frame in data[:-1]) == "Hello"
    assert (data[-1]["done"], data[-1]["finish_reason"], "token" in data[-1]) == (True, "stop", False)


@pytest.mark.acceptance("E2", "E6")
def test_tokens_are_written_as_they_come(live: Live) -> None:
    with stream(live) as lines:
        generation = live.engine.next()
        for index, piece in enumerate(("Once", " upon", " a")):
            live.engine.say(generation, piece)
            assert json.loads(next(lines).removeprefix("data: ")) == {"token": piece, "index": index}
            assert next(lines) == ""
        live.engine.finish(generation, "length", n=3)
        end = json.loads(next(lines).removeprefix("data: "))
    assert end["finish_reason"] == "length"
    assert end["usage"]["completion_tokens"] == 3
    assert end["id"] == generation.request.id
    assert isinstance(end["processing_time_ms"], int)


@pytest.mark.acceptance("E1", "E4", "E6", "G2")
@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", "application/json", None])
def test_headers_of_a_stream(live: Live, accept: str | None) -> None:
    """They are the same whatever the client says it would like, compressed or not."""
    live.engine.pieces = ("x",)
    headers = {**AUTH, "Accept-Encoding": "gzip, br", **({"Accept": accept} if accept else {})}
    with httpx.Client(headers=headers) as client:
        if accept is None:
            del client.headers["Accept"]
        response = client.post(f"{live.url}/inference/stream", json={**PROMPT, "stream": False})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in response.headers
    assert "[DONE]" not in response.text


@pytest.mark.acceptance("E6")
@pytest.mark.parametrize(
    ("path", "frame"),
    [
        ("/inference/stream", {"code": "INFERENCE_FAILED", "message": "The engine failed."}),
        (
            "/v1/completions",
            {"code": "INFERENCE_FAILED", "message": "The engine failed.", "type": "server_error", "param": None},
        ),
    ],
)
def test_an_error_after_the_first_byte_is_a_frame(live: Live, path: str, frame: dict[str, Any]) -> None:
    with stream(live, path, stream=True) as lines:
        generation = live.engine.next()
        live.engine.say(generation, "half")
        live.engine.finish(generation, "error")
        data = sse_data("\n".join(lines) + "\n\n")
    assert len(data) == 2
    assert data[1] == {"error": frame}


@pytest.mark.parametrize(("reason", "code"), [("timeout", "TIMEOUT"), ("cancelled", "SERVICE_UNAVAILABLE")])
def test_texts_cut_off_are_no_regular_end(live: Live, reason: Any, code: str) -> None:
    with stream(live) as lines:
        live.engine.finish(live.engine.next(), reason)
        assert json.loads(next(lines).removeprefix("data: "))["error"]["code"] == code


@pytest.mark.acceptance("E6", "X1")
def test_a_bug_of_ours_is_a_frame_too(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferno.server.dialects.native.NativeRenderer.event", lambda *_: 1 / 0)
    with stream(live) as lines:
        live.engine.say(live.engine.next(), "x")
        frame = json.loads(next(lines).removeprefix("data: "))
    assert frame == {"error": {"code": "INTERNAL_ERROR", "message": "Something went wrong inside the server."}}


@pytest.mark.acceptance("E6")
def test_silence_is_filled_with_comments(serve: Callable[..., Live], silent_engine: FakeEngine) -> None:
    live = serve(silent_engine, server__keepalive_s=0.05)
    with stream(live, "/v1/chat/completions", stream=True) as lines:
        generation = live.engine.next()
        seen = [next(lines) for _ in range(6)]
        live.engine.finish(generation)
        rest = list(lines)
    assert seen[2:] == [": keep-alive", "", ": keep-alive", ""]
    assert rest[-2] == "data: [DONE]"


@pytest.mark.acceptance("E6")
@pytest.mark.parametrize("path", ["/inference/stream", "/inference", "/v1/chat/completions"])
def test_a_client_that_leaves_cancels(live: Live, path: str) -> None:
    connection = live.post(path, {**PROMPT, **CHAT})
    generation = live.engine.next()
    live.engine.say(generation, "x")
    connection.close()
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids


def test_a_client_that_leaves_before_anything_is_said_cancels_all_choices(live: Live) -> None:
    connection = live.post("/v1/completions", {**PROMPT, "n": 3, "stream": True})
    generation = live.engine.next()
    connection.close()
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids


def test_a_finished_stream_cancels_nothing(live: Live) -> None:
    live.engine.pieces = ("x",)
    httpx.post(f"{live.url}/inference/stream", json=PROMPT, headers=AUTH)
    assert live.engine.cancelled.empty()


@pytest.mark.acceptance("S7")
def test_a_reader_that_stops_is_cut_off(serve: Callable[..., Live], silent_engine: FakeEngine) -> None:
    live = serve(silent_engine, server__stream_write_timeout_s=0.2)
    with live.post("/inference/stream", PROMPT) as connection:
        generation = live.engine.next()
        live.engine.say(generation, "x" * 16_000_000)  # more than the buffers of both sides hold
        while b"xxx" not in connection.recv(4096):
            pass
        live.engine.say(generation, "x")
        assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1 << 20):  # until the end: the connection is closed
                pass


@pytest.mark.acceptance("E5")
def test_text_that_waits_for_a_slow_reader_is_merged(live: Live) -> None:
    with stream(live) as lines:
        generation = live.engine.next()
        text = "".join(f"{number} " for number in range(2000))
        for piece in text.split(" ")[:-1]:
            live.engine.say(generation, piece + " ")
        live.engine.finish(generation)
        data = sse_data("\n".join(lines) + "\n\n")
    assert "".join(frame["token"] for frame in data[:-1]) == text
    assert [frame["index"] for frame in data[:-1]] == list(range(len(data) - 1))
