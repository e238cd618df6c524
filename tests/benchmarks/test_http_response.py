"""HTTP responses from bytes that arrive in pieces of any size."""

from __future__ import annotations

import pytest

from benchmarks.http_response import Response

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b'{"text": "caf\xc3\xa9"}', b'{"text": "two\\nlines"}', b"[DONE]"]


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def fed(response: Response, data: bytes, size: int) -> list[bytes]:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [event for piece in pieces for event in response.feed(piece)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize(
    "body",
    [
        chunked(*(b"data: " + event + b"\n\n" for event in EVENTS)),
        chunked(b"data: " + EVENTS[0] + b"\n\ndata: ", EVENTS[1] + b"\n", b"\n: ping\n\ndata:" + EVENTS[2] + b"\n\n"),
        chunked(b"id: 4\r\ndata: " + b"\r\n\r\ndata: ".join(EVENTS) + b"\r\n\r\n"),
    ],
    ids=["an event a chunk", "events across chunks", "lines that end in CRLF"],
)
def test_events_however_they_arrive(body: bytes, size: int) -> None:
    response = Response()
    assert fed(response, HEAD + body, size) == EVENTS
    assert response.status == 200
    assert response.complete


def test_events_come_as_soon_as_they_end() -> None:
    response = Response()
    response.feed(HEAD)
    assert response.feed(b"d\r\ndata: now\n\nda\r\n") == [b"now"]
    assert not response.complete


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_body_of_known_length(size: int) -> None:
    response = Response()
    data = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 11\r\nContent-Type: application/json\r\n\r\n{"error":1}'
    assert fed(response, data, size) == []
    assert (response.status, bytes(response.body), response.complete) == (400, b'{"error":1}', True)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    response = Response()
    response.feed(b"HTTP/1.1 200 OK\r\n\r\nwhat comes")
    assert not response.complete
    response.close()
    assert response.complete
    assert bytes(response.body) == b"what comes"


def test_a_chunked_body_that_is_cut_off_is_not_complete() -> None:
    response = Response()
    response.feed(HEAD + b"20\r\ndata: half")
    response.close()
    assert not response.complete
