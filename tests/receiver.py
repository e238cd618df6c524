"""A receiver of webhooks on loopback that answers as it is told."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.fakes import PATIENCE_S


class Message(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


class Receiver:
    """Answers 204, or by what was planned: a status, with headers, for one message each. What goes to `/hang` is not
    answered before the receiver is closed."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Message] = queue.Queue()
        self._planned: queue.Queue[tuple[int, Mapping[str, str]]] = queue.Queue()
        self._closed = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.messages.put(Message(self.path, dict(self.headers), body))
                if self.path == "/hang":
                    receiver._closed.wait()
                self._answer(*receiver._next_answer())

            def _answer(self, status: int, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A sender that was killed does not take its answer."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{self.origin}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def plan(self, status: int, **headers: str) -> None:
        """Answer the next message that has no plan yet with `status`; `_` in the names of headers stands for `-`."""
        self._planned.put((status, {name.replace("_", "-"): value for name, value in headers.items()}))

    def next(self) -> Message:
        return self.messages.get(timeout=PATIENCE_S)

    def taken(self) -> list[Message]:
        """All that has come and was not asked for yet."""
        found = []
        while not self.messages.empty():
            found.append(self.messages.get())
        return found

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next_answer(self) -> tuple[int, Mapping[str, str]]:
        try:
            return self._planned.get_nowait()
        except queue.Empty:
            return 204, {}
