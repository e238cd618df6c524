"""uvicorn's WebSocket protocol with the limits that it lacks.

It bounds the size of a message, but neither the number of frames, of which pings and empty fragments never reach the
application, nor the time for which a peer that stopped reading can hold a connection that has been closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from inferno.server.exchange import ABORT

#: Bytes of a message, and the frames that it may be split into.
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_FRAGMENTS = 128
#: Frames of any kind in a second, and how many may come at once.
FRAMES_PER_S = 100.0
FRAMES_AT_ONCE = 200.0
#: Bytes parsed between two looks at the count: a read of tiny frames must not hold up the other connections.
_PIECE = 4096


def is_handshake(head: bytes) -> bool:
    """True when the request line and headers are a WebSocket handshake (RFC 6455, section 4.2.1)."""
    protocol = ServerProtocol()
    protocol.receive_data(head)
    requests = [event for event in protocol.events_received() if isinstance(event, Request)]
    return bool(requests) and protocol.accept(requests[0]).status_code == 101


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One connection. Requires: its handshake is one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._allowance = FRAMES_AT_ONCE
        self._counted = self.loop.time()
        self._failed = False
        self._last_resort: asyncio.TimerHandle | None = None

    # ---- what arrives -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            if self._failed:
                return
            super().data_received(data[start : start + _PIECE])

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        self.scope["extensions"][ABORT] = self._abort  # type: ignore[assignment]

    def handle_events(self) -> None:
        now = self.loop.time()
        earned = (now - self._counted) * FRAMES_PER_S
        self._allowance = min(FRAMES_AT_ONCE, self._allowance + earned) - len(self.conn.events)
        self._counted = now
        if self._allowance < 0:
            self._fail(CloseCode.POLICY_VIOLATION, "too many messages")
        else:
            super().handle_events()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) == MAX_FRAGMENTS:
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"more than {MAX_FRAGMENTS} frames")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self._fail(CloseCode.INVALID_DATA, "not UTF-8")
        else:
            super().send_receive_event_to_app()

    # ---- what leaves --------------------------------------------------------------------------------------------

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.close_sent and self.initial_response is not None:
            self.handshake_complete = True  # by a refusal, which the base class takes for no answer at all

    # ---- endings ------------------------------------------------------------------------------------------------

    def _fail(self, code: CloseCode, reason: str) -> None:
        if not self._failed:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """The peer broke the protocol or a limit. It is told why, and what it still sends is read and dropped for a
        while: a connection that is closed with unread data is reset, and the reason lost."""
        self._failed = self.disconnected = self.close_sent = True
        self.frames = []
        self.writable.set()  # whoever waits to send learns that there is no use
        close = self.conn.close_sent
        if close is None:  # frames before the handshake was answered
            self.transport.abort()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort()  # who does not answer pings may not read either, and closing waits for that

    def shutdown(self) -> None:
        if self.handshake_complete and self.conn.state is not State.OPEN:
            self._abort()  # closed already, with a last byte that the peer does not take in
        else:
            super().shutdown()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self._last_resort = self.loop.call_later(self.close_timeout, self._abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._last_resort is not None:
            self._last_resort.cancel()
        super().connection_lost(exc)

    def _abort(self) -> None:
        """Drop the connection without waiting for its reader to take in what is buffered."""
        self.disconnected = True
        self.transport.abort()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
