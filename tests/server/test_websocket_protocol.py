"""T59, T60, T62, T64: frames that no client library sends, floods, and readers that stop, over raw sockets."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
from inferno import errors
from inferno.server import run, websocket_protocol

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import KEY, PROMPT, Live

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0
PING_MESSAGE = b'{"type": "ping"}'


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, bits: int = 0) -> bytes:
    """A client's frame, masked with zeros; `bits` are the reserved ones."""
    length = len(payload)
    if length < 126:
        sizes = struct.pack("!B", 0x80 | length)
    elif length < 1 << 16:
        sizes = struct.pack("!BH", 0x80 | 126, length)
    else:
        sizes = struct.pack("!BQ", 0x80 | 127, length)
    return bytes([fin << 7 | bits << 4 | opcode]) + sizes + bytes(4) + payload


class Raw:
    """A WebSocket by hand, authenticated."""

    def __init__(self, live: Live, **headers: str) -> None:
        self.socket = live.connect()
        fields = {"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        fields |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Authorization": f"Bearer {KEY}"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in fields.items()]
        self.socket.sendall("\r\n".join(["GET /ws HTTP/1.1", *lines, "", ""]).encode())
        self._stream = self.socket.makefile("rb")
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self._stream.readline()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, name: str) -> None:
        self.send(frame(TEXT, json.dumps({"type": "inference", "id": name, "stream": True, **PROMPT}).encode()))

    def frame(self) -> tuple[int, bytes]:
        first, length = self._stream.read(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._stream.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._stream.read(8))
        return first & 15, self._stream.read(length)

    def message(self) -> dict[str, Any]:
        opcode, payload = self.frame()
        assert opcode == TEXT
        return dict(json.loads(payload))

    def close_code(self) -> int:
        """The code of the next close frame, after which the connection must end."""
        while (received := self.frame())[0] != CLOSE:
            pass
        assert self._stream.read() == b""
        return int.from_bytes(received[1][:2])

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


Open = Callable[..., Raw]


@pytest.fixture
def open_raw() -> Iterator[Open]:
    with ExitStack() as stack:

        def start(live: Live, **headers: str) -> Raw:
            raw = Raw(live, **headers)
            stack.callback(raw.close)
            return raw

        yield start


@pytest.fixture
def raw(live: Live, open_raw: Open) -> Raw:
    return open_raw(live)


def test_frames_may_be_fragments(raw: Raw) -> None:
    pieces = [PING_MESSAGE[:3], b"", PING_MESSAGE[3:]]
    raw.send(frame(TEXT, pieces[0], fin=False) + frame(CONTINUATION, pieces[1], fin=False))
    raw.send(frame(PING, b"between"))
    assert raw.frame() == (PONG, b"between")
    raw.send(frame(CONTINUATION, pieces[2]))
    assert raw.message() == {"type": "pong"}


@pytest.mark.acceptance("S6", "W6")
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, bytes(17 << 20))[:100_000], 1009),
        (frame(TEXT, bytes((1 << 20) + 1)), 1009),
        (frame(TEXT, bytes(1 << 20), fin=False) + frame(CONTINUATION, b"x"), 1009),
        (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"", fin=False) * 1_000_000, 1008),
        (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 150, 1009),
        (frame(TEXT, b'"\xff"'), 1007),
        (frame(TEXT, b'"\xc3', fin=False) + frame(CONTINUATION, b'"'), 1007),
        (frame(TEXT, b'"\xed\xa0\x80"'), 1007),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
        (frame(TEXT, b"x", bits=4), 1002),
        (frame(TEXT, b"x", bits=1), 1002),
        (frame(3, b"x"), 1002),
        (frame(11), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (b"\x81\x05hello", 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, struct.pack("!H", 999)), 1002),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002),
        (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        (frame(PING) * 10_000, 1008),
        (frame(PONG) * 10_000, 1008),
        (frame(TEXT, PING_MESSAGE) * 10_000, 1008),
        (frame(BINARY) * 10_000, 1008),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else str(value),
)
def test_what_is_not_allowed_ends_the_connection(live: Live, raw: Raw, data: bytes, code: int) -> None:
    raw.ask("a")
    generation = live.engine.next()
    with suppress(ConnectionError):
        raw.send(data)
    assert raw.close_code() == code
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_a_regular_close_is_answered(raw: Raw, code: int) -> None:
    raw.send(frame(CLOSE, struct.pack("!H", code) + b"bye"))
    assert raw.close_code() == code


def test_a_full_message_is_taken(raw: Raw) -> None:
    padding = b" " * (websocket_protocol.MAX_MESSAGE_BYTES - len(PING_MESSAGE))
    raw.send(frame(TEXT, PING_MESSAGE + padding))
    assert raw.message() == {"type": "pong"}


def test_a_flood_harms_nobody_else(live: Live, raw: Raw, open_raw: Open) -> None:
    other = open_raw(live)
    other.ask("a")
    generation = live.engine.next()
    with suppress(ConnectionError):
        raw.send(frame(PING) * 300_000)
    assert raw.close_code() == 1008
    live.engine.say(generation, "on")
    assert other.message()["token"] == "on"
    live.engine.finish(generation)
    assert other.message()["type"] == "complete"


def test_the_allowance_grows_again(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_protocol, "FRAMES_PER_S", 1e9)
    for _ in range(5):
        raw.send(frame(TEXT, PING_MESSAGE) * 150)
        assert [raw.message() for _ in range(150)] == [{"type": "pong"}] * 150


def test_nothing_is_compressed(live: Live, open_raw: Open) -> None:
    raw = open_raw(live, Sec_WebSocket_Extensions="permessage-deflate")
    assert b"sec-websocket-extensions" not in raw.head.lower()
    raw.send(frame(TEXT, b"\x00", bits=4))
    assert raw.close_code() == 1002


@pytest.mark.parametrize(
    "change",
    [
        {"Sec_WebSocket_Key": "x"},
        {"Sec_WebSocket_Version": "8"},
        {"Connection": "upgrade, ;"},
        {"Sec_WebSocket_Protocol": "a" * 9000},
        {"Content_Length": "5"},
        {"Transfer_Encoding": "chunked"},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_handshake_that_is_none_is_a_plain_request(live: Live, open_raw: Open, change: dict[str, str]) -> None:
    raw = open_raw(live, **change)
    assert raw.head.startswith(b"HTTP/1.1 400 ")
    assert b"application/json" in raw.head


# ---- readers ----


def fill(live: Live, raw: Raw) -> Any:
    """A generation of which the client has not read the first, very long piece: more than all buffers hold."""
    raw.ask("a")
    generation = live.engine.next()
    live.engine.say(generation, "x" * 16_000_000)
    raw.socket.recv(1, socket.MSG_PEEK)
    return generation


@pytest.mark.acceptance("S7")
def test_a_reader_that_stops_is_cut_off(serve: Callable[..., Live], silent_engine: FakeEngine, open_raw: Open) -> None:
    live = serve(silent_engine, server__stream_write_timeout_s=0.2)
    raw = open_raw(live)
    generation = fill(live, raw)
    live.engine.say(generation, "x")
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids
    with suppress(ConnectionResetError):
        while raw.socket.recv(1 << 20):  # until the end: the connection is closed
            pass


def test_text_that_waits_for_a_slow_reader_is_merged(live: Live, raw: Raw) -> None:
    generation = fill(live, raw)
    for _ in range(2000):
        live.engine.say(generation, "y")
    live.engine.finish(generation)
    messages = [raw.message()]
    while messages[-1]["type"] != "complete":
        messages.append(raw.message())
    tokens = [message["token"] for message in messages[:-1]]
    assert "".join(tokens) == "x" * 16_000_000 + "y" * 2000 == messages[-1]["text"]
    assert [message["index"] for message in messages[:-1]] == list(range(len(tokens)))
    assert len(tokens) < 100


def test_cancelling_what_has_ended_does_not_hide_how(live: Live, raw: Raw) -> None:
    """The refusal of `b` waits behind the unread text of `a` when its cancellation comes."""
    generation = fill(live, raw)
    live.engine.refusal = errors.ServiceUnavailable("The queue is full.")
    raw.ask("b")
    assert httpx.get(f"{live.url}/health").status_code == 200  # the loop has had a turn
    raw.send(frame(TEXT, b'{"type": "cancel", "id": "b"}'))
    assert httpx.get(f"{live.url}/health").status_code == 200
    live.engine.finish(generation)
    seen = [raw.message() for _ in range(3)]
    assert ("b", "SERVICE_UNAVAILABLE") in [(message["id"], message.get("code")) for message in seen]


@pytest.mark.acceptance("S7")
def test_a_peer_that_does_not_answer_pings_is_dropped(
    serve: Callable[..., Live], silent_engine: FakeEngine, open_raw: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_PING_S", 0.1)
    monkeypatch.setattr(run, "_PONG_S", 0.1)
    with monkeypatch.context() as held:  # no ping before there is something to cancel
        held.setattr(websocket_protocol.GuardedWebSocket, "start_keepalive", lambda connection: None)
        live = serve(silent_engine)
        raw = open_raw(live)
        generation = fill(live, raw)
    (connection,) = live.server.server_state.connections
    connection.loop.call_soon_threadsafe(connection.start_keepalive)
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids


def test_a_peer_that_answers_pings_is_kept(
    serve: Callable[..., Live], silent_engine: FakeEngine, open_raw: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_PING_S", 0.1)
    raw = open_raw(serve(silent_engine))
    for _ in range(5):  # each ping but the first one follows an answer
        opcode, payload = raw.frame()
        assert opcode == PING
        raw.send(frame(PONG, payload))
    raw.send(frame(TEXT, PING_MESSAGE))
    while (received := raw.frame())[0] == PING:
        raw.send(frame(PONG, received[1]))
    assert json.loads(received[1]) == {"type": "pong"}


def test_a_peer_that_leaves_without_reading_does_not_stay(
    live: Live, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last bytes cannot be delivered; the connection ends all the same."""
    generation = fill(live, raw)
    (connection,) = live.server.server_state.connections
    monkeypatch.setattr(connection, "close_timeout", 0.2)
    raw.send(frame(CLOSE, struct.pack("!H", 1000)))
    assert live.engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids
    while connection in live.server.server_state.connections:
        httpx.get(f"{live.url}/health")


def test_stopping_does_not_wait_for_a_peer_that_left_without_reading(live: Live, raw: Raw) -> None:
    fill(live, raw)
    raw.send(frame(CLOSE, struct.pack("!H", 1000)))
    live.engine.cancelled.get(timeout=PATIENCE_S)
    live.server.should_exit = True
    live.join()
    assert live.services.pool.closing  # type: ignore[attr-defined]
