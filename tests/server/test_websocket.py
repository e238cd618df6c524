"""W1-W9, T57, T58, T61: conversations over /ws, with a real client."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from inferno import errors
from inferno.errors import AuthenticationFailed
from inferno.identity.callers import Caller
from inferno.request import Request
from inferno.server import websocket
from inferno.server.websocket_protocol import GuardedWebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import AUTH, KEY, MODEL, PROMPT, Live, make_services

TYPES = {"auth", "token", "complete", "error", "pong"}
ASK: dict[str, Any] = {"type": "inference", **PROMPT}


class Talk:
    """One client; it looks at the type of everything it is told."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def next(self) -> dict[str, Any]:
        message = json.loads(self.connection.recv(timeout=PATIENCE_S))
        assert message["type"] in TYPES
        return dict(message)

    def ask(self, name: str, **fields: Any) -> None:
        self.send(**{**ASK, "id": name, **fields})

    def close_code(self) -> int | None:
        """The code with which the server ends the conversation; nothing else may come before."""
        with pytest.raises(ConnectionClosed):
            self.connection.recv(timeout=PATIENCE_S)
        return self.connection.close_code


Open = Callable[..., Talk]


@pytest.fixture
def open_to() -> Iterator[Callable[..., Talk]]:
    """Opens a WebSocket of a server, with the key in the upgrade unless told otherwise."""
    with ExitStack() as stack:

        def start(live: Live, path: str = "/ws", headers: dict[str, str] = AUTH) -> Talk:
            uri = f"ws://127.0.0.1:{live.port}{path}"
            return Talk(stack.enter_context(connect(uri, additional_headers=headers, proxy=None)))

        yield start


@pytest.fixture
def talk(open_to: Open, live: Live) -> Talk:
    """An authenticated client of a silent engine."""
    return open_to(live)


@pytest.fixture
def talkative(live: Live) -> Live:
    live.engine.pieces = ("Once", " upon")
    return live


def refusal(live: Live, path: str = "/ws", headers: dict[str, str] = AUTH) -> tuple[int, dict[str, Any]]:
    """Status and body of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{live.port}{path}", additional_headers=headers, proxy=None).close()
    response = caught.value.response
    assert response.headers["X-Request-ID"] == json.loads(response.body)["request_id"]
    return response.status_code, {**json.loads(response.body)["error"], "headers": response.headers}


# ---- who it is ----


@pytest.mark.acceptance("W1", "W9")
@pytest.mark.parametrize("path", ["/ws", "/ws/stream", "/v1/ws", "/v1/ws/stream"])
def test_the_first_message_says_who_it_is(talkative: Live, open_to: Open, path: str) -> None:
    talk = open_to(talkative, path, {})
    talk.send(type="auth", token=KEY)
    assert talk.next() == {"type": "auth", "status": "ok", "user": "operator"}
    talk.ask("a")
    assert talk.next()["type"] == "complete"


@pytest.mark.acceptance("W1")
@pytest.mark.parametrize("headers", [AUTH, {"X-API-Key": KEY}])
def test_a_header_says_it_as_well(talkative: Live, open_to: Open, headers: dict[str, str]) -> None:
    talk = open_to(talkative, headers=headers)
    talk.ask("a")
    assert talk.next()["type"] == "complete"
    talk.send(type="auth", token=KEY)
    assert talk.next()["status"] == "ok"


@pytest.mark.acceptance("W1")
@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer wrong"}, {"X-API-Key": "x"}, {"Authorization": "Basic eA=="}]
)
def test_a_wrong_header_is_refused_before_the_handshake(live: Live, headers: dict[str, str]) -> None:
    status, error = refusal(live, headers=headers)
    assert (status, error["code"], error["headers"]["WWW-Authenticate"]) == (401, "AUTHENTICATION_FAILED", "Bearer")


def test_a_refusal_is_no_fault_of_ours(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    assert refusal(live, headers={"X-API-Key": "x"})[0] == 401
    assert httpx.get(f"{live.url}/health").status_code == 200  # the loop has had a turn
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.acceptance("W1")
@pytest.mark.parametrize("name", ["token", "access_token", "api_key", "Key", "Authorization"])
def test_keys_in_the_address_are_refused(live: Live, name: str) -> None:
    assert refusal(live, f"/ws?x=1&{name}={KEY}")[0] == 401


def test_other_queries_are_ignored(talkative: Live, open_to: Open) -> None:
    open_to(talkative, "/ws?version=3&x").send(type="ping")


def test_without_authentication_nobody_need_say_it(open_to: Open, engine: FakeEngine) -> None:
    live = Live(make_services(engine, key=None, auth__enabled=False))
    try:
        talk = open_to(live, headers={})
        talk.ask("a")
        assert talk.next()["type"] == "complete"
    finally:
        live.stop()


@pytest.mark.acceptance("W8")
@pytest.mark.parametrize(
    "message",
    [
        {**ASK, "id": "a"},
        {"type": "ping"},
        {"type": "auth", "token": "wrong"},
        {"type": "auth", "token": ""},
        {"type": "auth"},
        {"type": "auth", "token": 7},
        {"type": "nonsense"},
        [],
    ],
    ids=str,
)
def test_who_does_not_say_it_first_is_sent_away(live: Live, open_to: Open, message: Any) -> None:
    talk = open_to(live, headers={})
    talk.connection.send(json.dumps(message))
    error = talk.next()
    assert (error["type"], error["code"]) == ("error", "AUTHENTICATION_FAILED")
    assert isinstance(error["message"], str)
    assert talk.close_code() == 1008
    assert live.engine.submitted.empty()


@pytest.mark.acceptance("W8")
def test_who_says_nothing_is_sent_away(live: Live, open_to: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "AUTH_DEADLINE_S", 0.1)
    talk = open_to(live, headers={})
    assert talk.next()["code"] == "AUTHENTICATION_FAILED"
    assert talk.close_code() == 1008


def test_a_wrong_token_later_ends_the_conversation(talk: Talk) -> None:
    talk.send(type="auth", token="wrong")
    assert talk.next()["code"] == "AUTHENTICATION_FAILED"
    assert talk.close_code() == 1008


def be_called_by(live: Live, *permissions: str) -> None:
    """Whoever calls has these permissions only."""
    caller = Caller(user_id="c", username="c", role="user", permissions=frozenset(permissions), subject="key:c")

    async def authenticate(credential: str | None, address: str) -> Caller:
        return caller

    live.services.authenticator.authenticate = authenticate  # type: ignore[method-assign]


@pytest.mark.acceptance("A6")
def test_a_key_without_the_permission(live: Live, open_to: Open) -> None:
    be_called_by(live, "models:read")
    status, error = refusal(live)
    assert (status, error["code"]) == (403, "AUTHORIZATION_FAILED")


def test_a_token_without_the_permission(live: Live, open_to: Open) -> None:
    talk = open_to(live, headers={})
    be_called_by(live)
    talk.send(type="auth", token=KEY)
    assert talk.next()["code"] == "AUTHORIZATION_FAILED"
    assert talk.close_code() == 1008


@pytest.mark.acceptance("W8")
def test_a_key_that_was_revoked_ends_the_conversation(live: Live, talk: Talk) -> None:
    async def authenticate(credential: str | None, address: str) -> Caller:
        raise AuthenticationFailed("The key or token is not valid, has expired or was revoked.")

    live.services.authenticator.authenticate = authenticate  # type: ignore[method-assign]
    talk.ask("a")
    assert talk.next()["code"] == "AUTHENTICATION_FAILED"
    assert talk.close_code() == 1008


@pytest.mark.acceptance("W8", "L1")
def test_each_request_counts_against_the_limits(serve: Callable[..., Live], open_to: Open) -> None:
    live = serve(FakeEngine(), limits__enabled=True, limits__requests_per_minute=2)
    talk = open_to(live)
    answers = []
    for name in ("a", "b", "c"):
        talk.ask(name)
        answers.append(talk.next())
    assert [answer["type"] for answer in answers] == ["complete", "complete", "error"]
    assert answers[2]["code"] == "RATE_LIMIT_EXCEEDED"
    assert answers[2]["details"]["retry_after"] >= 1


# ---- the handshake ----


@pytest.mark.acceptance("V2", "X1")
def test_the_handshake_has_our_headers(talk: Talk) -> None:
    response = talk.connection.response
    assert response is not None
    assert response.headers["X-Request-ID"].startswith("req_")
    assert response.headers["API-Version"] == "1.0"
    assert "Sec-WebSocket-Extensions" not in response.headers  # T60: nothing is decompressed


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "http://127.0.0.1", "null", "http://[", ""]
)
def test_pages_from_elsewhere_are_refused(live: Live, origin: str) -> None:
    status, error = refusal(live, headers={**AUTH, "Origin": origin})
    assert (status, error["code"], error["details"]) == (403, "AUTHORIZATION_FAILED", {"field": "Origin"})


def test_our_own_pages_are_not(live: Live, open_to: Open) -> None:
    open_to(live, headers={**AUTH, "Origin": live.url}).send(type="ping")


@pytest.mark.parametrize("allowed", ["https://app.example", "*"])
def test_listed_pages_are_not(serve: Callable[..., Live], engine: FakeEngine, open_to: Open, allowed: str) -> None:
    live = serve(engine, server__cors_origins=[allowed])
    open_to(live, headers={**AUTH, "Origin": "https://app.example"}).send(type="ping")


@pytest.mark.acceptance("S8", "V2")
@pytest.mark.parametrize(
    ("headers", "field"), [({"Host": "evil.example"}, "Host"), ({"API-Version": "2"}, "API-Version")]
)
def test_the_checks_of_every_request(live: Live, headers: dict[str, str], field: str) -> None:
    with live.connect() as connection:
        fields = {"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        fields |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", **AUTH, **headers}
        lines = [f"{name}: {value}" for name, value in fields.items()]
        connection.sendall("\r\n".join(["GET /ws HTTP/1.1", *lines, "", ""]).encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["details"] == {"field": field}


def test_a_server_that_stops_opens_none(live: Live) -> None:
    live.services.draining.set()
    status, error = refusal(live)
    assert (status, error["code"], error["headers"]["Retry-After"]) == (503, "SERVICE_UNAVAILABLE", "5")


@pytest.mark.parametrize("path", ["/", "/wss", "/ws/", "/ws/other", "/inference", "/v1/ws/x"])
def test_there_is_no_websocket_elsewhere(live: Live, path: str) -> None:
    status, error = refusal(live, path)
    assert (status, error["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_plain_requests_are_told_what_is_here(live: Live, method: str) -> None:
    response = httpx.request(method, f"{live.url}/ws", headers=AUTH)
    assert (response.status_code, response.json()["error"]["details"]) == (400, {"field": "Upgrade"})


# ---- requests ----


@pytest.mark.acceptance("W2", "W3", "W7")
def test_the_documents_client_does_not_wait(talkative: Live, open_to: Open) -> None:
    talk = open_to(talkative, headers={})
    talk.send(type="auth", token=KEY)
    talk.ask("req_123", max_tokens=200, stream=True)
    talk.send(type="ping")
    talk.send(type="cancel", id="none")
    messages = [talk.next() for _ in range(5)]
    assert messages[0]["type"] == "auth"
    assert {message["type"] for message in messages} == TYPES
    text = [message for message in messages if message.get("id") == "req_123"]
    assert text[0] == {"type": "token", "id": "req_123", "token": "Once upon", "index": 0}
    assert text[1]["type"] == "complete"


@pytest.mark.acceptance("W3")
def test_tokens_come_as_they_are_said(live: Live, talk: Talk) -> None:
    talk.ask("a", stream=True)
    generation = live.engine.next()
    for index, piece in enumerate(("Once", " upon", " a")):
        live.engine.say(generation, piece)
        assert talk.next() == {"type": "token", "id": "a", "token": piece, "index": index}
    live.engine.finish(generation, "length", n=3)
    end = talk.next()
    assert isinstance(end.pop("processing_time_ms"), int)
    usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7, "cached_tokens": 1}
    text = {"text": "Once upon a", "finish_reason": "length", "usage": usage, "model": MODEL}
    assert end == {"type": "complete", "id": "a", **text}


@pytest.mark.acceptance("W3")
@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": None}])
def test_without_stream_the_end_has_the_text(live: Live, talk: Talk, stream: dict[str, Any]) -> None:
    talk.ask("a", **stream)
    generation = live.engine.next()
    live.engine.say(generation, "Once")
    live.engine.say(generation, " upon")
    live.engine.finish(generation)
    end = talk.next()
    assert (end["type"], end["text"], end["finish_reason"]) == ("complete", "Once upon", "stop")


@pytest.mark.acceptance("W3")
def test_all_fields_of_inference_are_there(live: Live, talk: Talk) -> None:
    talk.ask("a", max_tokens=9, temperature=0.5, top_p=0.8, top_k=3, repeat_penalty=1.2, stop="x", seed=7, logprobs=1)
    generation = live.engine.next()
    request = generation.request
    assert request.prompts[0].text == PROMPT["prompt"]  # type: ignore[union-attr]
    sampling = request.sampling
    assert (sampling["max_tokens"], sampling["top_k"], sampling["seed"], sampling["stop"]) == (9, 3, 7, ["x"])
    assert sampling["temperature"] == pytest.approx(0.5)
    assert request.timeout_s == 300
    assert request.cache_salt == live.services.authenticator.salt_of("operator")
    live.engine.say(generation, "x")
    live.engine.finish(generation)
    assert talk.next()["logprobs"][0]["token"] == "x"


@pytest.mark.acceptance("W8")
def test_requests_run_side_by_side(live: Live, talk: Talk) -> None:
    talk.ask("a", stream=True)
    talk.ask("b", stream=True)
    first, second = live.engine.next(), live.engine.next()
    for name, generation in (("a", first), ("b", second), ("a", first)):
        live.engine.say(generation, name)
        message = talk.next()
        assert (message["id"], message["token"]) == (name, name)
    live.engine.finish(second)
    assert (talk.next()["id"], live.engine.cancelled.empty()) == ("b", True)
    live.engine.finish(first)
    end = talk.next()
    assert (end["id"], end["text"]) == ("a", "aa")


@pytest.mark.acceptance("W8")
def test_an_id_names_one_running_request(live: Live, talk: Talk) -> None:
    talk.ask("a", stream=True)
    generation = live.engine.next()
    talk.ask("a", stream=True)
    error = talk.next()
    assert (error["id"], error["code"], error["details"]) == ("a", "INVALID_REQUEST", {"field": "id"})
    live.engine.say(generation, "on")
    assert talk.next()["token"] == "on"
    live.engine.finish(generation)
    assert talk.next()["type"] == "complete"
    talk.ask("a")
    live.engine.finish(live.engine.next())
    assert talk.next()["type"] == "complete"


@pytest.mark.acceptance("W8")
def test_requests_at_once_are_limited(live: Live, talk: Talk) -> None:
    for number in range(websocket.MAX_RUNNING + 1):
        talk.ask(f"id-{number}")
    error = talk.next()
    assert (error["id"], error["code"]) == (f"id-{websocket.MAX_RUNNING}", "RATE_LIMIT_EXCEEDED")
    live.engine.finish(live.engine.next())
    assert talk.next()["id"] == "id-0"
    talk.ask("more")
    for _ in range(websocket.MAX_RUNNING):
        live.engine.finish(live.engine.next())
    assert {talk.next()["type"] for _ in range(websocket.MAX_RUNNING)} == {"complete"}


@pytest.mark.acceptance("W8")
def test_who_leaves_cancels_everything(live: Live, talk: Talk) -> None:
    talk.ask("a", stream=True)
    talk.ask("b")
    ids = [live.engine.next().sequence_ids for _ in range(2)]
    talk.connection.close()
    assert sorted(live.engine.cancelled.get(timeout=PATIENCE_S) for _ in range(2)) == ids
    assert httpx.get(f"{live.url}/health").status_code == 200  # whatever the loop had to do is done
    assert live.services.pool.leases == 0  # type: ignore[attr-defined]


@pytest.mark.acceptance("W8")
def test_a_lost_connection_cancels_everything(live: Live, talk: Talk) -> None:
    talk.ask("a", stream=True)
    generation = live.engine.next()
    talk.connection.socket.shutdown(2)
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids


def test_text_for_who_has_just_left_is_no_fault_of_ours(
    live: Live, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk.ask("a", stream=True)
    generation = live.engine.next()
    lost = GuardedWebSocket.connection_lost

    def speak_and_lose(connection: GuardedWebSocket, exc: Exception | None) -> None:
        live.engine.say(generation, "late")  # so that it is sent before the end has been read
        lost(connection, exc)

    monkeypatch.setattr(GuardedWebSocket, "connection_lost", speak_and_lose)
    talk.connection.socket.shutdown(2)
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids
    lines = httpx.get(f"{live.url}/metrics", headers=AUTH).text.splitlines()
    assert 'inferno_inference_failures_total{code="CLIENT_LEFT",model="llama-2-7b"} 1.0' in lines


def test_requests_are_counted(talkative: Live, open_to: Open) -> None:
    talk = open_to(talkative)
    talk.ask("a", stream=True)
    while talk.next()["type"] != "complete":
        pass
    lines = httpx.get(f"{talkative.url}/metrics", headers=AUTH).text.splitlines()
    assert 'inferno_inference_requests_total{model="llama-2-7b"} 1.0' in lines
    assert 'inferno_tokens_total{kind="completion",model="llama-2-7b"} 2.0' in lines
    assert "inferno_inference_duration_seconds_count 1.0" in lines


def test_the_log_has_the_route_and_no_secrets(talkative: Live, open_to: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inferno.access")
    talk = open_to(talkative)
    talk.send(type="auth", token=KEY)
    talk.next()
    talk.connection.close()
    while not (lines := [record.__dict__["fields"] for record in caplog.records if record.name == "inferno.access"]):
        pass
    assert (lines[0]["method"], lines[0]["route"], lines[0]["status"]) == ("GET", "/ws", 101)
    assert KEY not in str([record.__dict__ for record in caplog.records])


# ---- cancelling ----


@pytest.mark.acceptance("W4")
@pytest.mark.parametrize("stream", [True, False])
def test_cancelling_ends_with_the_text_so_far(live: Live, talk: Talk, stream: bool) -> None:
    talk.ask("a", stream=stream)
    generation = live.engine.next()
    live.engine.say(generation, "half")
    if stream:
        assert talk.next()["token"] == "half"
    for _ in range(3):
        talk.send(type="cancel", id="a")
    end = talk.next()
    assert (end["type"], end["id"], end["finish_reason"], end["text"]) == ("complete", "a", "cancelled", "half")
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids


@pytest.mark.acceptance("W4")
def test_cancelling_at_once(live: Live, talk: Talk) -> None:
    talk.ask("a", stream=True)
    talk.send(type="cancel", id="a")
    end = talk.next()
    assert (end["type"], end["finish_reason"], end["text"]) == ("complete", "cancelled", "")


class _Hesitant(FakeEngine):
    """Never accepts anything."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked: queue.Queue[Request] = queue.Queue()
        self.given_up: queue.Queue[Request] = queue.Queue()

    async def submit(self, request: Request) -> Any:
        self.asked.put(request)
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.put(request)


@pytest.mark.acceptance("W4")
def test_cancelling_what_is_not_yet_accepted(serve: Callable[..., Live], open_to: Open) -> None:
    engine = _Hesitant()
    live = serve(engine)
    talk = open_to(live)
    talk.ask("a")
    engine.asked.get(timeout=PATIENCE_S)
    talk.send(type="cancel", id="a")
    talk.send(type="cancel", id="a")
    end = talk.next()
    assert (end["type"], end["finish_reason"], end["text"], end["usage"]["total_tokens"]) == (
        "complete",
        "cancelled",
        "",
        0,
    )
    engine.given_up.get(timeout=PATIENCE_S)
    talk.ask("a")
    engine.asked.get(timeout=PATIENCE_S)
    talk.connection.close()
    engine.given_up.get(timeout=PATIENCE_S)


@pytest.mark.acceptance("W4")
def test_cancelling_what_is_not_there(live: Live, talk: Talk, open_to: Open) -> None:
    talk.ask("mine", stream=True)
    generation = live.engine.next()
    stranger = open_to(live)
    for name in ("none", "mine"):
        stranger.send(type="cancel", id=name)
        error = stranger.next()
        assert (error["type"], error["id"], error["code"]) == ("error", name, "NOT_FOUND")
    live.engine.say(generation, "on")
    assert talk.next()["token"] == "on"
    live.engine.finish(generation)
    assert talk.next()["finish_reason"] == "stop"
    talk.send(type="cancel", id="mine")
    assert talk.next()["code"] == "NOT_FOUND"
    talk.send(type="cancel")
    assert talk.next()["code"] == "INVALID_REQUEST"


# ---- pings ----


@pytest.mark.acceptance("W5")
@pytest.mark.parametrize(
    "echoed", [{}, {"id": "x"}, {"timestamp": 1704067200.5}, {"id": 7, "timestamp": "2024-01-01T00:00:00Z"}]
)
def test_a_ping_is_echoed(talk: Talk, echoed: dict[str, Any]) -> None:
    talk.send(type="ping", other=1, **echoed)
    assert talk.next() == {"type": "pong", **echoed}


@pytest.mark.parametrize("value", [[], {}, True, 2**64])
def test_a_ping_echoes_texts_and_numbers_only(talk: Talk, value: Any) -> None:
    talk.send(type="ping", timestamp=value)
    assert talk.next()["details"] == {"field": "timestamp"}


# ---- errors ----


@pytest.mark.acceptance("W6")
@pytest.mark.parametrize(
    ("message", "name", "field"),
    [
        ("{", None, None),
        ('{"type": "ping", "type": "ping"}', None, None),
        ('{"type": NaN}', None, None),
        ("[" * 70 + "]" * 70, None, None),
        ("7", None, None),
        ("null", None, None),
        (b'{"type": "ping"}', None, None),
        ({}, None, "type"),
        ({"type": 1}, None, "type"),
        ({"type": "unknown", "id": "a"}, None, "type"),
        ({"type": "token", "id": "a"}, None, "type"),
        ({"type": "auth"}, None, "token"),
        ({**ASK}, None, "id"),
        ({**ASK, "id": ""}, None, "id"),
        ({**ASK, "id": "x" * 129}, None, "id"),
        ({**ASK, "id": 7}, None, "id"),
        ({**ASK, "id": "a", "prompt": ""}, "a", "prompt"),
        ({**ASK, "id": "a", "model": None}, "a", "model"),
        ({**ASK, "id": "a", "stream": "yes"}, "a", "stream"),
        ({**ASK, "id": "a", "temperature": 9}, "a", "temperature"),
        ({**ASK, "id": "a", "tools": [1]}, "a", "tools"),
    ],
    ids=str,
)
def test_a_bad_message_is_an_error_and_no_more(
    live: Live, talk: Talk, message: Any, name: str | None, field: str | None
) -> None:
    talk.connection.send(json.dumps(message) if isinstance(message, dict) else message)
    error = talk.next()
    assert (error["type"], error["code"], error.get("id")) == ("error", "INVALID_REQUEST", name)
    assert isinstance(error["message"], str)
    assert error.get("details", {}).get("field") == field
    talk.send(type="ping")
    assert talk.next() == {"type": "pong"}
    assert live.engine.submitted.empty()


@pytest.mark.acceptance("W6")
@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_a_refused_request_is_an_error_with_its_id(live: Live, talk: Talk, code: str) -> None:
    live.engine.refusal = errors.BY_CODE[code]("Said so.", hint=1)
    talk.ask("a")
    assert talk.next() == {"type": "error", "id": "a", "code": code, "message": "Said so.", "details": {"hint": 1}}
    talk.send(type="ping")
    assert talk.next() == {"type": "pong"}


@pytest.mark.acceptance("M6", "W6")
def test_an_unknown_model_is_an_error_with_its_id(talk: Talk) -> None:
    talk.ask("a", model="nobody")
    error = talk.next()
    assert (error["id"], error["code"]) == ("a", "MODEL_NOT_FOUND")
    assert MODEL in error["details"]["available_models"]


@pytest.mark.acceptance("W6")
@pytest.mark.parametrize(
    ("reason", "code"),
    [("error", "INFERENCE_FAILED"), ("timeout", "TIMEOUT"), ("cancelled", "SERVICE_UNAVAILABLE")],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_text_cut_off_is_no_regular_end(live: Live, talk: Talk, reason: Any, code: str, stream: bool) -> None:
    talk.ask("a", stream=stream)
    generation = live.engine.next()
    live.engine.say(generation, "half")
    if stream:
        assert talk.next()["token"] == "half"
    live.engine.finish(generation, reason)
    error = talk.next()
    assert (error["type"], error["id"], error["code"]) == ("error", "a", code)


def test_a_bug_of_ours_ends_one_request(live: Live, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk.ask("good", stream=True)
    good = live.engine.next()
    monkeypatch.setattr(live.engine, "submit", lambda _: 1 / 0)
    talk.ask("bad")
    error = talk.next()
    assert (error["id"], error["code"]) == ("bad", "INTERNAL_ERROR")
    assert error["message"] == "Something went wrong inside the server."
    live.engine.say(good, "on")
    assert talk.next()["token"] == "on"


def test_a_bug_of_ours_in_the_conversation_closes_it(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket.dialect, "pong", lambda _: 1 / 0)
    talk.send(type="ping")
    assert talk.close_code() == 1011
