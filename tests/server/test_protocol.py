"""T41, T44, T45: what is no proper HTTP, and what takes too long, over raw sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from inferno.engine.generation import Generation
from inferno.server import protocol

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import KEY, PROMPT, Live, settings

Pipelined: TypeAlias = Callable[[bytes], tuple[socket.socket, Generation]]
HEAD = f"POST /inference HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n".encode()


def exchange(live: Live, data: bytes) -> bytes:
    """All that comes back until the server closes."""
    with live.connect() as connection:
        with contextlib.suppress(ConnectionError):  # it may close before all has been sent
            connection.sendall(data)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


@pytest.mark.acceptance("G4", "S6", "V2", "X1")
@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: +3\r\n\r\nabc",
        HEAD + b"Content-Length: -1\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        HEAD + b"Bad Header: x\r\n\r\n",
        HEAD + b"Name : x\r\n\r\n",
        HEAD + b"X: a\x00b\r\n\r\n",
        HEAD + b"X: a\r\n folded\r\n\r\n",
        HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: y\r\n" % index for index in range(200)) + b"\r\n",
        b"GET /health?" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=lambda data: repr(data[-30:]),
)
def test_what_is_no_http_is_400_and_the_end(live: Live, data: bytes) -> None:
    head, _, content = exchange(live, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    headers = dict(line.split(": ") for line in head.decode().lower().splitlines()[1:])
    assert headers["connection"] == "close"
    assert headers["api-version"] == "1.0"
    body = json.loads(content)
    assert body.keys() == {"error", "request_id", "timestamp"}
    assert body["error"]["code"] == "INVALID_REQUEST"
    assert body["request_id"] == headers["x-request-id"]
    assert live.engine.submitted.empty()


@pytest.mark.acceptance("S6")
@pytest.mark.parametrize(
    "behind", [b"", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"], ids=["head", "trailer"]
)
def test_a_header_without_an_end_is_refused(live: Live, behind: bytes) -> None:
    with live.connect() as connection:
        connection.sendall(HEAD + behind + b"X: ")
        try:
            for _ in range(100):
                connection.sendall(b"a" * 16384)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = read_all(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.acceptance("S7")
@pytest.mark.parametrize(
    "data", [b"", b"GET /hea", HEAD + b"X: y\r\n", b"\r\n\r\n", HEAD + b"Content-Length: 10\r\n\r\n{"], ids=repr
)
def test_requests_must_arrive_in_time(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Live], engine: FakeEngine, data: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_DEADLINE_S", 0.1)
    monkeypatch.setattr(protocol, "BODY_DEADLINE_S", 0.1)
    assert exchange(serve(engine), data) == b""


@pytest.mark.acceptance("S7")
@pytest.mark.parametrize("head", [b"GET /", HEAD + b"X: ", HEAD + b"Content-Length: 100000\r\n\r\n"], ids=repr)
def test_a_byte_now_and_then_buys_no_time(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Live], engine: FakeEngine, head: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_DEADLINE_S", 0.3)
    monkeypatch.setattr(protocol, "BODY_DEADLINE_S", 0.3)
    with serve(engine).connect() as connection:
        connection.settimeout(0.02)
        sent = 0
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
            while sent < 250:
                try:
                    assert connection.recv(4096) == b""
                    break
                except TimeoutError:  # it is still open
                    connection.sendall(b"a")
                    sent += 1
    assert sent < 250
    assert engine.submitted.empty()


@pytest.mark.acceptance("S7")
def test_the_deadlines() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    assert (protocol.HEAD_DEADLINE_S, protocol.BODY_DEADLINE_S) == (10, 60)
    assert "must arrive within 10 seconds; the body within 60" in page
    assert settings().server.request_timeout_s == 300


def test_a_long_answer_is_not_cut_by_the_deadlines(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Live], silent_engine: FakeEngine
) -> None:
    live = serve(silent_engine, server__keepalive_s=0.3)
    with live.post("/inference/stream", PROMPT) as connection:
        generation = live.engine.next()
        (served,) = live.server.server_state.connections
        assert served._deadline is None  # the request has arrived
        monkeypatch.setattr(protocol, "HEAD_DEADLINE_S", 0.1)
        monkeypatch.setattr(protocol, "BODY_DEADLINE_S", 0.1)
        received = b""
        while b"keep-alive" not in received:
            received += connection.recv(65536)
        live.engine.finish(generation)
        while b'"done":true' not in received:
            received += connection.recv(65536)


def test_connections_are_kept_for_the_next_request(live: Live) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with live.connect() as connection:
        for _ in range(3):
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(live: Live) -> None:
    live.engine.pieces = ("x",)
    body = json.dumps({**PROMPT, "pad": "x" * 40_000}).encode()
    first = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    second = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers = exchange(live, first + second)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.index(b'"choices"') < answers.index(b'"healthy"')


@pytest.fixture
def pipelined(live: Live) -> Iterator[Pipelined]:
    """Makes connections on which a stream has begun and something was sent behind its request."""
    with contextlib.ExitStack() as stack:

        def make(second: bytes) -> tuple[socket.socket, Generation]:
            connection = stack.enter_context(live.post("/inference/stream", PROMPT))
            generation = live.engine.next()
            live.engine.say(generation, "word")
            while b"word" not in connection.recv(65536):
                pass
            connection.sendall(second)
            return connection, generation

        yield make


def test_who_leaves_a_pipeline_cancels_what_runs(
    live: Live, pipelined: Pipelined, caplog: pytest.LogCaptureFixture
) -> None:
    connection, generation = pipelined(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connection.close()
    deadline = time.monotonic() + PATIENCE_S
    while live.engine.cancelled.empty():
        live.engine.say(generation, "word")
        assert time.monotonic() < deadline
    live.stop()
    assert "unexpected error" not in caplog.text


def test_a_bad_request_in_a_pipeline_is_not_answered_inside_a_stream(live: Live, pipelined: Pipelined) -> None:
    connection, _ = pipelined(HEAD + b"Transfer-Encoding: chunked\r\n\r\nno number\r\n")
    assert read_all(connection) == b""
    assert live.engine.cancelled.get(timeout=PATIENCE_S)


@pytest.mark.acceptance("S6")
def test_fields_behind_a_chunked_body_are_no_headers(live: Live) -> None:
    """Also when all of it comes at once."""
    head = b"POST /inference HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    trailer = f"Authorization: Bearer {KEY}\r\n\r\n".encode()
    assert exchange(live, head + b"2\r\n{}\r\n0\r\n" + trailer).startswith(b"HTTP/1.1 401 ")
    endless = b"X: " + b"a" * protocol.MAX_HEAD_BYTES + b"\r\n\r\n"
    assert exchange(live, head + b"2\r\n{}\r\n0\r\n" + endless).startswith(b"HTTP/1.1 400 ")


@pytest.mark.acceptance("S6", "X3")
def test_a_large_body_is_413_before_it_is_sent(live: Live) -> None:
    answer = exchange(live, HEAD + b"Connection: close\r\nContent-Length: 999999999999\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"PAYLOAD_TOO_LARGE" in answer


@pytest.mark.acceptance("S6", "X3")
def test_a_large_chunked_body_is_413_while_it_comes(serve: Callable[..., Live], engine: FakeEngine) -> None:
    live = serve(engine, server__max_body_bytes=1024)
    chunks = b"400\r\n" + b" " * 1024 + b"\r\n"
    answer = exchange(live, HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks * 2)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_upgrades_are_not_taken(live: Live) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    assert exchange(live, request).startswith(b"HTTP/1.1 ")
