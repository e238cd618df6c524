"""One WebSocket: it says who it is, then any number of requests run side by side, each under an id of the client's.

One task reads the messages, in order, and never waits for an answer; each request has a task of its own; all write
through one lock. While the client does not read, the lock is held, text waits merged in its Generation, and nothing
more is read from the client either. The message forms are in `dialects/websocket.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message
from websockets.frames import CloseCode

from inferno import errors
from inferno.engine.generation import Collector, Generation
from inferno.identity.authentication import presented_credential
from inferno.identity.callers import Caller
from inferno.request import Request, Result
from inferno.server.body import Body
from inferno.server.call import Call, ClientLeft, SlowReader
from inferno.server.dialects import websocket as dialect
from inferno.server.errors import UNEXPECTED
from inferno.server.inference import accepted, refuse_cancelled
from inferno.server.route import Admit
from inferno.server.strict_json import parse_json

log = logging.getLogger(__name__)

#: Seconds for the first message, which must be of type `auth` unless a header has said who it is.
AUTH_DEADLINE_S = 5.0
#: Requests that may run at once on one connection.
MAX_RUNNING = 16
_encode = msgspec.json.Encoder().encode


async def converse(call: Call, admit: Admit) -> None:
    """Accept the handshake and serve the connection until it ends. Raises SlowReader."""
    await Connection(call, admit).run()


class Job:
    """One request of a connection."""

    def __init__(self, name: str, request: Request, *, stream: bool, caller: Caller) -> None:
        self.name = name
        self.request = request
        self.stream = stream
        self.caller = caller
        self.renderer = dialect.MessageRenderer(name, request)
        self.began = time.perf_counter()
        self.generation: Generation | None = None
        #: While the request waits to be accepted: the task that waits.
        self.waiting: asyncio.Task[Any] | None = None
        #: The client has asked for the end.
        self.cancelled = False

    def cancel(self) -> None:
        """Harmless when repeated, and when the text is complete already."""
        if self.cancelled:
            return
        self.cancelled = True
        if self.generation is not None:
            self.generation.cancel()
        elif self.waiting is not None:
            self.waiting.cancel()

    @property
    def elapsed_ms(self) -> int:
        return round((time.perf_counter() - self.began) * 1000)


class Connection:
    """Lives in one task group: when the client leaves, or reads too slowly, everything of it is cancelled."""

    def __init__(self, call: Call, admit: Admit) -> None:
        self._call = call
        self._admit = admit
        self._caller = call.caller
        self._credential = presented_credential(call.headers)
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self._closed = False  # a close has been sent, or none is needed any more
        self._draining = False
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        await self._receive()  # the request to connect
        await self._emit({"type": "websocket.accept"})
        too_slow = False
        try:
            async with self._group:
                self._start(self._leave_when_draining())
                try:
                    await self._read()
                finally:
                    self._closed = True
                    for task in self._tasks:
                        task.cancel()
        except* ClientDisconnect:
            pass
        except* SlowReader:
            too_slow = True
        if too_slow:
            raise SlowReader

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- reading ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Answer messages until the client leaves (ClientDisconnect) or fails to say who it is."""
        try:
            while True:
                async with asyncio.timeout(None if self._caller else AUTH_DEADLINE_S):
                    event = await self._receive()
                await self._take(event)
        except TimeoutError:
            await self._refuse(errors.AuthenticationFailed(f"No auth message came within {AUTH_DEADLINE_S:g} s."))
        except (errors.AuthenticationFailed, errors.AuthorizationFailed) as error:
            await self._refuse(error)

    async def _receive(self) -> Message:
        event = await self._call.receive()
        if event["type"] == "websocket.disconnect":
            raise ClientDisconnect
        return event

    async def _take(self, event: Message) -> None:
        """One message. Raises AuthenticationFailed and AuthorizationFailed, which end the connection; every other
        error is told to the client."""
        name = None
        try:
            message = _parsed(event)
            kind = message.text("type")
            if kind in ("inference", "cancel"):
                name = dialect.message_id(message)
            await self._answer(kind, message, name or "")
        except (errors.AuthenticationFailed, errors.AuthorizationFailed):
            raise
        except errors.InfernoError as error:
            if self._caller is None:
                raise errors.AuthenticationFailed(f"The first message must be of type auth. {error.message}") from None
            await self._send(dialect.error_message(error, name))

    async def _answer(self, kind: str, message: Body, name: str) -> None:
        if kind == "auth":
            await self._authenticate(message.text("token"))
        elif self._caller is None:
            raise errors.AuthenticationFailed("The first message must be of type auth.")
        elif kind == "inference":
            await self._begin(message, name)
        elif kind == "cancel":
            self._cancel(name)
        elif kind == "ping":
            await self._send(dialect.pong(message))
        else:
            message.refuse("type", "one of auth, inference, cancel, ping")

    async def _authenticate(self, token: str) -> None:
        """Also later, for a new token before the old one expires."""
        self._caller = await self._admit(token)
        self._credential = token
        await self._send(dialect.welcome(self._caller.username))

    async def _refuse(self, error: errors.InfernoError) -> None:
        await self._send(dialect.error_message(error))
        await self._close(CloseCode.POLICY_VIOLATION, error.code)

    # ---- requests -----------------------------------------------------------------------------------------------

    async def _begin(self, message: Body, name: str) -> None:
        """Whether the credential is still good is asked each time: a connection may outlive it."""
        caller = await self._admit(self._credential)
        if name in self._jobs:
            message.refuse("id", "the id of no request that still runs")
        if len(self._jobs) >= MAX_RUNNING:
            text = f"Only {MAX_RUNNING} requests may run at once on one connection."
            raise errors.RateLimitExceeded(text, limit=MAX_RUNNING, retry_after=1)
        job = Job(name, dialect.parse(message), stream=dialect.wants_stream(message), caller=caller)
        self._jobs[name] = job
        self._start(self._run(job))

    def _cancel(self, name: str) -> None:
        if name not in self._jobs:
            raise errors.NotFound(f"No request with the id '{name}' runs on this connection.")
        self._jobs[name].cancel()

    async def _run(self, job: Job) -> None:
        """The one way from an `inference` message to the last message about it."""
        try:
            await self._send(await self._outcome(job))
        finally:
            del self._jobs[job.name]
        if self._draining:
            await self._leave_if_idle()

    async def _outcome(self, job: Job) -> Mapping[str, Any]:
        """The last message. Raises ClientDisconnect, SlowReader."""
        job.waiting = asyncio.current_task()
        try:
            return await self._infer(job)
        except asyncio.CancelledError:
            if self._closed or not job.cancelled or job.waiting is None:
                raise
            job.waiting.uncancel()
            return job.renderer.cancelled(job.elapsed_ms)
        except (ClientDisconnect, SlowReader):
            raise
        except errors.InfernoError as error:
            return job.renderer.error(error)
        except Exception:
            log.exception("unexpected error", extra={"fields": {"request_id": job.request.id}})
            return job.renderer.error(errors.InternalError(UNEXPECTED))
        finally:
            job.waiting = None  # what is left is to say how it ended, and cancelling does not stop that

    async def _infer(self, job: Job) -> Mapping[str, Any]:
        if job.cancelled:  # before this task had its first turn
            return job.renderer.cancelled(job.elapsed_ms)
        services, caller = self._call.services, job.caller
        async with (
            services.limiter.admit(caller.subject, caller.limits) as admission,
            accepted(services, caller, admission, job.request, self._call.origin_of(caller, job.request.id)) as work,
        ):
            job.generation = work.generation
            result = await (self._stream(job, work.generation) if job.stream else work.generation.result())
            if not job.cancelled:
                refuse_cancelled(result.choices[0].finish_reason)
            work.observe(result)
        return job.renderer.whole(result, job.elapsed_ms)

    async def _stream(self, job: Job, generation: Generation) -> Result:
        """Send text as it comes. Whatever arrives while a write waits for the client becomes one message."""
        collector = Collector(generation.request)
        async with contextlib.aclosing(aiter(generation)) as events:
            async for index, event in events:
                collector.add(index, event)
                for message in job.renderer.event(index, event):
                    await self._send(message)
        return collector.result()

    # ---- writing ------------------------------------------------------------------------------------------------

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._emit({"type": "websocket.send", "text": _encode(message).decode()})

    async def _close(self, code: CloseCode, reason: str) -> None:
        await self._emit({"type": "websocket.close", "code": int(code), "reason": reason})

    async def _emit(self, event: Message) -> None:
        """One event at a time. Raises ClientLeft, also after a close, and SlowReader."""
        async with self._writing:
            if self._closed:
                raise ClientLeft
            self._closed = event["type"] == "websocket.close"
            await self._call.send(event)

    # ---- stopping -----------------------------------------------------------------------------------------------

    async def _leave_when_draining(self) -> None:
        await self._call.services.draining.wait()
        self._draining = True
        await self._leave_if_idle()

    async def _leave_if_idle(self) -> None:
        if not self._jobs:
            await self._close(CloseCode.SERVICE_RESTART, "the server is stopping")


def _parsed(event: Message) -> Body:
    text = event.get("text")
    if text is None:
        raise errors.InvalidRequest("A message must be text, not binary.")
    return Body(parse_json(text.encode()))
