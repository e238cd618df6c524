"""uvicorn's HTTP/1.1 protocol with the limits and deadlines that it lacks.

uvicorn bounds neither the head of a request nor the time in which it must arrive; its keep-alive timer starts anew
with every byte. Refusals made here are in the envelope of all other errors.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from inferno import errors
from inferno.request import new_id
from inferno.server.errors import STATUS, envelope
from inferno.server.exchange import ABORT, common_headers
from inferno.server.websocket_protocol import is_handshake

MAX_HEAD_BYTES = 16 * 1024
MAX_FIELDS = 100
#: Seconds for the request line and headers, from the first byte (or the connection) on, and for the body after them.
HEAD_DEADLINE_S = 10.0
BODY_DEADLINE_S = 60.0


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._in_request = False
        self._head_bytes = 0  # of the head, or of what has come since the last piece of the body
        self._advanced = False  # in the piece of data at hand a request began, or there was something of its body
        self._handshake: bool | None = None  # whether the request is a WebSocket handshake, once that was asked
        self._deadline: asyncio.TimerHandle | None = None
        # `cycle` is of the newest request, which in a pipeline waits for this one.
        self._answered: RequestResponseCycle | None = None

    # ---- what arrives -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_within(HEAD_DEADLINE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self._give_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self._answering:
            self._expect_within(HEAD_DEADLINE_S)
        self._advanced = False
        super().data_received(data)
        if self._in_request and not self._advanced:
            # A header without an end, before a body or behind it, never reaches on_header: its bytes are counted here.
            self._head_bytes += len(data)
            if self._head_bytes > 2 * MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The headers are too large.")

    @property
    def _answering(self) -> bool:
        return self._answered is not None and not self._answered.response_complete

    # ---- what the parser finds ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_request = self._advanced = True
        self._head_bytes = 0
        self._handshake = None
        self._expect_within(HEAD_DEADLINE_S)
        self.scope["extensions"] = {ABORT: self._abort}  # type: ignore[dict-item]

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Fields behind a chunked body come here too. They are counted and ignored: a proxy in front may have looked at
        none of them."""
        if self._in_head:
            super().on_header(name, value)
        self._count_head(len(name) + len(value))

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_FIELDS:
            raise _HeadTooLarge  # the parser stops, and data_received answers

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._expect_within(BODY_DEADLINE_S)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_request = False
        self._expect_nothing()
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    # ---- upgrades -----------------------------------------------------------------------------------------------

    def _should_upgrade_to_ws(self) -> bool:
        """A request to upgrade that is no handshake is answered like one that does not ask for it."""
        if self._handshake is None:
            fields = b"".join(name + b": " + value + b"\r\n" for name, value in self.headers)
            line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
            self._handshake = is_handshake(line + fields + b"\r\n")
        return self._handshake

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: upgrading is the client's wish, and ignoring it is allowed."""

    # ---- deadlines ----------------------------------------------------------------------------------------------

    def _expect_within(self, seconds: float) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        self._abort()

    def _abort(self) -> None:
        """Drop the connection without waiting for its reader to take in what is buffered."""
        self._give_up()
        self.transport.abort()

    def _give_up(self) -> None:
        """Who answers, or waits for more of the request, learns that there is no use."""
        if self._answered is not None and self._answering:
            self._answered.disconnected = True
            self._answered.message_event.set()

    # ---- refusals -----------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Called by the base class for what is no HTTP."""
        if self._answered is not None and self._answering:
            self._give_up()
            if self._answered.response_started:
                self._abort()  # in the middle of an answer there is no place for another
                return
        request_id = new_id("req")
        body = msgspec.json.encode(envelope(errors.InvalidRequest(msg), request_id, openai=False))
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *common_headers(request_id),
        ]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(STATUS_LINE[STATUS["INVALID_REQUEST"]] + head + b"\r\n" + body)
        self.transport.close()


class _HeadTooLarge(Exception):
    pass
