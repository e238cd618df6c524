"""Server-sent events: one generation to one client.

https://html.spec.whatwg.org/multipage/server-sent-events.html: a frame is `data: `, one line of JSON and a blank
line; lines that begin with a colon are comments, which keep a silent connection open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import msgspec
from starlette.requests import ClientDisconnect

from inferno import errors
from inferno.engine.generation import Generation, raise_for, total_usage
from inferno.request import Event, Finish, Usage
from inferno.server.call import Call, SlowReader
from inferno.server.dialects.base import Frame, Renderer
from inferno.server.errors import UNEXPECTED
from inferno.server.inference import refuse_cancelled
from inferno.telemetry.observation import Observation

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_COMMENT = b": keep-alive\n\n"
_encode = msgspec.json.Encoder().encode


def encode_frames(frames: Iterable[Frame]) -> bytes:
    """Frames are JSON objects, or ready text such as `[DONE]`."""
    return b"".join(
        b"data: " + (frame.encode() if isinstance(frame, str) else _encode(frame)) + b"\n\n" for frame in frames
    )


class EventStream:
    """Writes a generation as it comes. Whatever arrives while a write waits for the client becomes one write."""

    def __init__(
        self, call: Call, generation: Generation, renderer: Renderer, observed: Observation, began: float
    ) -> None:
        self._call = call
        self._generation = generation
        self._renderer = renderer
        self._observed = observed
        self._began = began
        self._keepalive_s = call.services.settings.server.keepalive_s
        self._usages: dict[int, Usage] = {}
        self._loop = asyncio.get_running_loop()
        self._last_write = self._loop.time()
        self._silent = False
        self._timer = self._loop.call_later(self._keepalive_s, self._check_silence)

    async def run(self) -> None:
        """Raises, after reporting it to the client, what ended the text early. Leaving in any way cancels it."""
        try:
            await self._call.send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._write_all()
        except (ClientDisconnect, SlowReader):
            raise
        except Exception as error:
            shown = error if isinstance(error, errors.InfernoError) else errors.InternalError(UNEXPECTED)
            await self._write_last([self._renderer.error(shown)])
            raise
        finally:
            self._timer.cancel()
            self._generation.cancel()

    async def _write_all(self) -> None:
        generation = self._generation
        await self._write(encode_frames(self._renderer.opening()))
        while not generation.exhausted:
            if events := generation.take():
                await self._deliver(events)
            elif self._silent:
                await self._write(_COMMENT)
            else:
                await generation.arrived()
        usages = [self._usages[index] for index in sorted(self._usages)]
        self._observed.usage(total_usage(usages, generation.request.n))
        await self._write_last(self._renderer.closing(round((time.perf_counter() - self._began) * 1000)))

    async def _deliver(self, events: list[tuple[int, Event]]) -> None:
        frames: list[Frame] = []
        try:
            for index, event in events:
                if isinstance(event, Finish):
                    self._note_end(index, event)
                frames.extend(self._renderer.event(index, event))
        finally:  # text that came together with an error is still text
            await self._write(encode_frames(frames))

    def _note_end(self, index: int, finish: Finish) -> None:
        raise_for(finish)
        refuse_cancelled(finish.reason)
        self._observed.sequence(finish.timings, finish.usage, finish.reason)
        self._usages[index] = finish.usage

    def _check_silence(self) -> None:
        now = self._loop.time()
        if now - self._last_write >= self._keepalive_s:
            self._silent = True
            self._generation.nudge()
            self._timer = self._loop.call_later(self._keepalive_s, self._check_silence)
        else:
            self._timer = self._loop.call_at(self._last_write + self._keepalive_s, self._check_silence)

    async def _write(self, data: bytes) -> None:
        if data:
            await self._call.send({"type": "http.response.body", "body": data, "more_body": True})
            self._last_write = self._loop.time()
            self._silent = False

    async def _write_last(self, frames: Iterable[Frame]) -> None:
        self._call.answered = True
        await self._call.send({"type": "http.response.body", "body": encode_frames(frames), "more_body": False})
