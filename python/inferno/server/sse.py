"""Server-sent events: one generation to one client.

https://html.spec.whatwg.org/multipage/server-sent-events.html: every frame is `data: ` and one line of JSON and ends
with a blank line; comment lines keep idle connections open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

import msgspec
from starlette.types import Send

from inferno import errors
from inferno.engine.generation import Generation, raise_for
from inferno.request import Event, Finish
from inferno.server.call import Call
from inferno.server.dialects.base import Frame, Renderer
from inferno.telemetry.metrics import Metrics

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_encode = msgspec.json.Encoder().encode


def encode_frames(frames: Iterable[Frame]) -> bytes:
    """Frames are JSON objects, or ready text such as `[DONE]`."""
    return b"".join(
        b"data: " + (frame.encode() if isinstance(frame, str) else _encode(frame)) + b"\n\n" for frame in frames
    )


class EventStream:
    """Writes a generation as it comes. A client that goes away, or does not read for too long, cancels it."""

    def __init__(self, call: Call, generation: Generation, renderer: Renderer, started: float) -> None:
        self._call = call
        self._generation = generation
        self._renderer = renderer
        self._started = started
        self._metrics: Metrics = call.services.metrics
        self._settings = call.services.settings.server
        self._gone = False

    async def run(self) -> list[Finish]:
        """Returns how the sequences ended (fewer than all when the client did not stay). Raises what ended them."""
        watch = asyncio.create_task(self._watch())
        try:
            await self._call.send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            return await self._write()
        except TimeoutError:
            return []  # the reader is stuck; leaving the response unfinished closes the connection
        finally:
            self._generation.cancel()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self) -> None:
        await self._call.disconnected()
        self._gone = True
        self._generation.cancel()
        self._generation.nudge()

    async def _write(self) -> list[Finish]:
        ends: list[Finish] = []
        await self._send(self._renderer.opening())
        try:
            async for frames in self._batches(ends):
                await self._send(frames)
            await self._send(self._renderer.closing(self._elapsed_ms()))
        except errors.InfernoError as error:
            await self._send([self._renderer.error(error)])
            await self._send([], more=False)
            raise
        await self._send([], more=False)
        return ends

    async def _batches(self, ends: list[Finish]) -> AsyncIterator[list[Frame]]:
        keepalive = self._settings.keepalive_s
        loop = asyncio.get_running_loop()
        timer = loop.call_later(keepalive, self._generation.nudge)
        try:
            while not self._gone:
                events = self._generation.take()
                if events:
                    yield self._frames(events, ends)
                elif self._generation.finished:
                    return
                else:
                    await self._generation.arrived()
                    if timer.when() <= loop.time():
                        timer = loop.call_later(keepalive, self._generation.nudge)
                        if not self._generation.has_events:
                            await self._send_bytes(b": keep-alive\n\n")
        finally:
            timer.cancel()

    def _frames(self, events: list[tuple[int, Event]], ends: list[Finish]) -> list[Frame]:
        frames: list[Frame] = []
        for index, event in events:
            if isinstance(event, Finish):
                raise_for(event)
                self._metrics.observe_finish(event)
                ends.append(event)
            frames.extend(self._renderer.event(index, event))
        return frames

    def _elapsed_ms(self) -> int:
        return round((time.perf_counter() - self._started) * 1000)

    async def _send(self, frames: Iterable[Frame], more: bool = True) -> None:
        data = encode_frames(frames)
        if data or not more:
            await self._send_bytes(data, more)

    async def _send_bytes(self, data: bytes, more: bool = True) -> None:
        send: Send = self._call.send
        async with asyncio.timeout(self._settings.stream_write_timeout_s):
            await send({"type": "http.response.body", "body": data, "more_body": more})
