"""One worker process as its parent sees it: started, talked to, ended. Nothing here decides to start another."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from inferno import errors
from inferno.engine import frames
from inferno.request import Event

log = logging.getLogger(__name__)

#: A descriptor number is appended.
WORKER_COMMAND: Sequence[str] = (sys.executable, "-P", "-m", "inferno.engine.worker_main")

ReportProgress: TypeAlias = Callable[[float], object]
ReceiveEvents: TypeAlias = Callable[[Iterable[Event]], None]


class WorkerProcess(asyncio.Protocol):
    """A running process and the socket to it. Everything here runs on the event loop that spawned it."""

    def __init__(self, process: subprocess.Popen[bytes], receive: ReceiveEvents) -> None:
        self._process = process
        self._receive = receive
        loop = asyncio.get_running_loop()
        self._disconnected: asyncio.Future[None] = loop.create_future()
        self._ready: asyncio.Future[frames.Ready] = loop.create_future()
        self._progress: ReportProgress | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._reader = frames.FrameReader()
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def spawn(
        cls, command: Sequence[str], environment: Mapping[str, str], receive: ReceiveEvents
    ) -> WorkerProcess:
        """Start a process that has `environment`, one end of a socket pair and its standard streams, and nothing
        else of ours. `receive` is called with the events it sends.

        The process dies with the thread that started it, so this must not be a pool's thread.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is the parent's business
            )
        try:
            loop = asyncio.get_running_loop()
            _, worker = await loop.create_unix_connection(lambda: cls(process, receive), sock=ours)
        except BaseException:
            ours.close()
            process.kill()
            process.wait()
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def connected(self) -> bool:
        return not self._disconnected.done()

    # ---- talking ------------------------------------------------------------------------------------------------

    async def load(self, path: str, options: dict[str, Any], progress: ReportProgress | None) -> frames.Ready:
        """Load a model; once. Raises what loading raises, InferenceFailed when the process ends instead."""
        self._progress = progress
        self.tell(frames.Load(path, options))
        return await self._ready

    def ask(self, question: Callable[[int], frames.ToWorker]) -> asyncio.Future[Any]:
        """Send a message that carries a call number. The future gets the answer, or InferenceFailed when the process
        ends first. Raises PayloadTooLarge."""
        return self._ask(question)[1]

    async def accepted(self, question: Callable[[int], frames.ToWorker]) -> frames.Accepted:
        """What a Submit or an Embed is answered with. When the caller gives up waiting, it is withdrawn; what
        has been accepted by then is cancelled: no work is left that nobody wants. Raises like `ask`."""
        number, answer = self._ask(question)
        try:
            accepted: frames.Accepted = await asyncio.shield(answer)
        except asyncio.CancelledError:
            self.tell(frames.Withdraw(number))
            answer.add_done_callback(self._cancel)
            raise
        return accepted

    def _cancel(self, answer: asyncio.Future[frames.Accepted]) -> None:
        if answer.exception() is None:
            self.tell(frames.Cancel(answer.result().sequence_ids))

    def _ask(self, question: Callable[[int], frames.ToWorker]) -> tuple[int, asyncio.Future[Any]]:
        number = next(self._numbers)
        frame = frames.encode(question(number))
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        if self.connected:
            self._write(frame)
        else:
            self._forget()
        return number, answer

    def tell(self, message: frames.ToWorker) -> None:
        """Send a message that has no answer; nothing happens when the process is gone."""
        if self.connected:
            self._write(frames.encode(message))

    def _write(self, frame: bytearray) -> None:
        assert self._transport is not None, "spawn() returns once connected"
        self._transport.write(frame)

    # ---- ending -------------------------------------------------------------------------------------------------

    async def ended(self) -> str:
        """Wait until the process is gone; how it went, in words."""
        await asyncio.shield(self._disconnected)
        if not await self._reaped_within(1.0):
            self.kill()
            await self._reaped_within(None)
        return _manner(self._process.returncode)

    async def close(self, grace_s: float, patience_s: float) -> None:
        """Ask the process to finish its work within `grace_s` seconds; then insist, `patience_s` at a time."""
        self.tell(frames.Close(grace_s))
        await asyncio.wait({self._disconnected}, timeout=grace_s + patience_s)
        if not await self._reaped_within(0.0 if not self._disconnected.done() else patience_s):
            self._process.send_signal(signal.SIGTERM)
            if not await self._reaped_within(patience_s):
                self.kill()
                await self._reaped_within(None)
        if self._transport is not None:
            self._transport.close()
        await asyncio.shield(self._disconnected)

    def kill(self) -> None:
        self._process.kill()

    async def _reaped_within(self, timeout_s: float | None) -> bool:
        if self._process.poll() is not None:
            return True
        try:
            await asyncio.to_thread(self._process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    # ---- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, though they do what those do.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                self._take(frames.decode_from_worker(body))
        except (ValueError, msgspec.MsgspecError):
            log.exception("the worker process broke the protocol; it is killed")
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnected.set_result(None)
        self._forget()

    def _take(self, message: frames.FromWorker) -> None:
        match message:
            case frames.Events(events):
                self._receive(events)
            case frames.Accepted(call):
                self._answer(call, message)
            case frames.Refused(call, error):
                self._answer(call, error.exception())
            case frames.Stats(call, stats):
                self._answer(call, stats)
            case frames.Progress(fraction):
                if self._progress is not None:
                    self._progress(fraction)
            case frames.Ready():
                _settle(self._ready, message)
            case frames.LoadFailed(error):
                _settle(self._ready, error.exception())

    def _answer(self, call: int, answer: object) -> None:
        future = self._calls.pop(call, None)
        if future is not None:
            _settle(future, answer)

    def _forget(self) -> None:
        """Answer everything that is still open: there is nobody else to do it."""
        _settle(self._ready, errors.InferenceFailed("The model's worker process ended while it loaded the model."))
        for call in list(self._calls):
            self._answer(call, errors.InferenceFailed("The model's worker process ended unexpectedly."))


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        future.exception()  # somebody may have stopped waiting: nothing to complain about
    else:
        future.set_result(outcome)


def _manner(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
