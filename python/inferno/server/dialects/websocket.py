"""The API document's WebSocket messages. The fields of an `inference` message are those of /inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inferno.engine.generation import Collector
from inferno.errors import InfernoError
from inferno.request import Event, Finish, Request, Result, Timings, Usage
from inferno.server.body import Body
from inferno.server.dialects import native

MAX_ID_CHARACTERS = 128
#: Integers that can be written back.
_ECHOED_NUMBERS = range(-(2**63), 2**63)


def parse(message: Body) -> Request:
    return native.parse(message)


def wants_stream(message: Body) -> bool:
    return native.wants_stream(message)


def message_id(message: Body) -> str:
    """The client's own name for one of its requests. Raises InvalidRequest."""
    name = message.text("id")
    if not 1 <= len(name) <= MAX_ID_CHARACTERS:
        message.refuse("id", f"a text of 1 to {MAX_ID_CHARACTERS} characters")
    return name


def welcome(user: str) -> dict[str, Any]:
    return {"type": "auth", "status": "ok", "user": user}


def pong(ping: Body) -> dict[str, Any]:
    """Echoes `id` and `timestamp`, texts or numbers. Raises InvalidRequest."""
    echoed = ping.only({"id", "timestamp"})
    for key, value in echoed.items():
        number = isinstance(value, float) or (type(value) is int and value in _ECHOED_NUMBERS)
        if not number and not isinstance(value, str):
            ping.refuse(key, "a text or a number")
    return {"type": "pong", **echoed}


def error_message(error: InfernoError, name: str | None = None) -> dict[str, Any]:
    """`name` is the id of the request that the error is about."""
    about = {} if name is None else {"id": name}
    details = {"details": error.details} if error.details else {}
    return {"type": "error", **about, "code": error.code, "message": error.message, **details}


class MessageRenderer:
    """The messages about one request, which the client calls `name`."""

    def __init__(self, name: str, request: Request) -> None:
        self._name = name
        self._request = request
        self._native = native.NativeRenderer(request)

    def event(self, index: int, event: Event) -> Iterator[dict[str, Any]]:
        for frame in self._native.event(index, event):
            assert isinstance(frame, Mapping), "this dialect has no ready-made frames"
            yield {"type": "token", "id": self._name, **frame}

    def whole(self, result: Result, elapsed_ms: int) -> dict[str, Any]:
        answer = self._native.whole(result, elapsed_ms)
        (choice,) = answer["choices"]
        return {
            "type": "complete",
            "id": self._name,
            **{key: value for key, value in choice.items() if key != "index"},
            **{key: answer[key] for key in ("usage", "model", "processing_time_ms")},
        }

    def cancelled(self, elapsed_ms: int) -> dict[str, Any]:
        """For a request that was cancelled before an engine took it."""
        collector = Collector(self._request)
        collector.add(0, Finish(0, "cancelled", Usage(), Timings()))
        return self.whole(collector.result(), elapsed_ms)

    def error(self, error: InfernoError) -> dict[str, Any]:
        return error_message(error, self._name)
