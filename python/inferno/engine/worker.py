"""The engine in a supervised child process: a crash there ends that model's streams and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from inferno import errors
from inferno.engine import frames
from inferno.engine.generation import Generation
from inferno.engine.streams import EmbeddingJob, Streams
from inferno.request import (
    EmbeddingRequest,
    Embeddings,
    EngineStats,
    ErrorInfo,
    ModelInfo,
    Request,
)

log = logging.getLogger(__name__)

State = Literal["loading", "ready", "restarting", "failed", "closed"]

#: What a worker may know of the server's environment. Everything else, secrets above all, stays behind.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH")
_PASSED_ON_PREFIXES = ("OMP_", "GOMP_", "GGML_", "CUDA_", "HIP_", "VK_")

WORKER_COMMAND = (sys.executable, "-m", "inferno.engine.worker_main")
_LOST = ErrorInfo("INFERENCE_FAILED", "The model's worker process ended unexpectedly.")
_TERMINATE_S = 5.0


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """When a worker that died is started again, and when no more. Seconds."""

    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0
    max_crashes: int = 5
    crash_window_s: float = 300.0
    ping_every_s: float = 5.0
    ping_timeout_s: float = 15.0


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of `environ` that a worker gets."""
    return {k: v for k, v in environ.items() if k in _PASSED_ON or k.startswith(_PASSED_ON_PREFIXES)}


class WorkerEngine:
    """Implements `inferno.engine.protocol.Engine`. Everything here runs on one event loop."""

    def __init__(
        self,
        path: str,
        options: Mapping[str, Any],
        supervision: Supervision,
        command: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        self._arguments = [*command, path, json.dumps(dict(options))]
        self._supervision = supervision
        self._clock = clock
        self._streams = Streams()
        self._calls: dict[int, tuple[asyncio.Future[Any], Callable[[Any], Any]]] = {}
        self._next_call = itertools.count(1)
        self._crashes: deque[float] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None
        self._ready: frames.Ready | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.state: State = "loading"
        self.restarts = 0

    @classmethod
    async def start(
        cls,
        path: str,
        options: Mapping[str, Any],
        *,
        supervision: Supervision | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        clock: Callable[[], float] = time.monotonic,
    ) -> WorkerEngine:
        """Load a model in a new worker. Raises what loading raises; then no process is left behind."""
        engine = cls(path, options, supervision or Supervision(), command, clock)
        try:
            await engine._spawn()
        except BaseException:
            engine.state = "failed"
            await engine._stop_process()
            raise
        engine._tasks = [asyncio.create_task(engine._supervise()), asyncio.create_task(engine._watch())]
        return engine

    # ---- the engine protocol ------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        return self._loaded().info

    @property
    def context_size(self) -> int:
        return self._loaded().context_size

    @property
    def memory_bytes(self) -> int:
        return self._loaded().memory_bytes

    @property
    def pid(self) -> int | None:
        """The worker's process id, for operators and tests."""
        return self._process.pid if self._process else None

    async def submit(self, request: Request) -> Generation:
        def accepted(ids: list[int]) -> Generation:
            generation = Generation(request, ids, self._cancel)
            self._streams.add(generation, ids)
            return generation

        future = self._call(lambda call: frames.Submit(call, request), accepted)
        try:
            generation: Generation = await asyncio.shield(future)
        except asyncio.CancelledError:
            # The worker may accept it all the same; nobody is there to read it then.
            future.add_done_callback(lambda done: done.exception() or done.result().cancel())
            raise
        return generation

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        done = asyncio.Event()

        def accepted(ids: list[int]) -> tuple[EmbeddingJob, list[int]]:
            job = EmbeddingJob(request, ids, done.set)
            self._streams.add(job, ids)
            return job, ids

        future = self._call(lambda call: frames.Embed(call, request), accepted)
        try:
            job, _ = await asyncio.shield(future)
            await done.wait()
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: done.exception() or self._cancel(done.result()[1]))
            raise
        result: Embeddings = job.result()
        return result

    async def stats(self) -> EngineStats:
        stats: EngineStats = await self._call(frames.AskStats, lambda stats: stats)
        return msgspec.structs.replace(stats, memory_bytes=self.memory_bytes)

    async def close(self, grace_s: float = 0.0) -> None:
        if self.state == "closed":
            return
        self.state = "closed"
        for task in self._tasks[1:]:
            task.cancel()
        if self._writer is not None:
            with contextlib.suppress(ConnectionError):
                self._writer.write(frames.encode(frames.Close(grace_s)))
            # The supervisor reads on until the worker has sent everything and gone.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._tasks[0]), grace_s + _TERMINATE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stop_process()
        self._fail_everything(ErrorInfo("SERVICE_UNAVAILABLE", "The model has been unloaded."))

    # ---- calls --------------------------------------------------------------------------------------------------

    def _loaded(self) -> frames.Ready:
        assert self._ready is not None, "start() returns only once the model is loaded"
        return self._ready

    def _call(self, message: Callable[[int], Any], accepted: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """Send a message; the future gets what `accepted` makes of the answer the moment it arrives."""
        if self.state != "ready" or self._writer is None:
            raise errors.ServiceUnavailable(f"The model's worker is {self.state}.", retry_after=1)
        call = next(self._next_call)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[call] = (future, accepted)
        try:
            self._writer.write(frames.encode(message(call)))
        except OverflowError as error:
            del self._calls[call]
            raise errors.PayloadTooLarge(str(error)) from None
        return future

    def _cancel(self, sequence_ids: list[int]) -> None:
        if self._writer is not None and self.state in ("ready", "closed"):
            self._writer.write(frames.encode(frames.Cancel(sequence_ids)))

    # ---- the process --------------------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        """Start the process and wait until its model is loaded."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*self._arguments, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=worker_environment(os.environ),
                start_new_session=True,
            )
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        frame_reader = frames.FrameReader()
        while data := await self._reader.read(1 << 20):
            for body in frame_reader.feed(data):
                message = frames.decode_from_worker(body)
                if isinstance(message, frames.Ready):
                    self._ready = message
                    self.state = "ready"
                    return
                if isinstance(message, frames.LoadFailed):
                    raise errors.from_dict(msgspec.structs.asdict(message.error))
        raise errors.InferenceFailed("The model's worker process ended while it loaded the model.")

    async def _supervise(self) -> None:
        while True:
            await self._pump()
            if self.state == "closed":
                return
            self._fail_everything(_LOST)
            await self._stop_process()
            if not await self._restart():
                self.state = "failed"
                log.error("worker failed too often; it is not started again")
                return

    async def _restart(self) -> bool:
        """Start again after a growing delay; False when there have been too many crashes."""
        while True:
            now = self._clock()
            self._crashes.append(now)
            while now - self._crashes[0] > self._supervision.crash_window_s:
                self._crashes.popleft()
            if len(self._crashes) >= self._supervision.max_crashes:
                return False
            self.state = "restarting"
            delay = self._supervision.first_delay_s * 2 ** (len(self._crashes) - 1)
            log.warning("worker ended; starting it again in %.1f s", delay)
            await asyncio.sleep(min(delay, self._supervision.longest_delay_s))
            try:
                await self._spawn()
            except errors.InfernoError as error:
                log.warning("worker did not start: %s", error.message)
                await self._stop_process()
                continue
            self.restarts += 1
            return True

    async def _pump(self) -> None:
        """Hand out frames until the worker goes away."""
        assert self._reader is not None
        frame_reader = frames.FrameReader()
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(1 << 20):
                for body in frame_reader.feed(data):
                    self._take(frames.decode_from_worker(body))

    def _take(self, message: frames.FromWorker) -> None:
        match message:
            case frames.Events(events):
                for event in events:
                    self._streams.feed(event)
            case frames.Accepted(call, ids):
                self._answer(call, ids)
            case frames.Stats(call, stats):
                self._answer(call, stats)
            case frames.Refused(call, error):
                self._answer(call, errors.from_dict(msgspec.structs.asdict(error)))
            case frames.Ready() | frames.LoadFailed():
                log.warning("worker said something out of turn")

    def _answer(self, call: int, answer: Any) -> None:
        future, accepted = self._calls.pop(call)
        if future.done():
            return
        if isinstance(answer, errors.InfernoError):
            future.set_exception(answer)
        else:
            future.set_result(accepted(answer))

    def _fail_everything(self, error: ErrorInfo) -> None:
        for call in list(self._calls):
            self._answer(call, errors.from_dict({"code": error.code, "message": error.message}))
        self._streams.fail_all(error)

    async def _watch(self) -> None:
        """A worker that does not answer in time is killed, which the supervisor then sees."""
        while True:
            await asyncio.sleep(self._supervision.ping_every_s)
            if self.state != "ready":
                continue
            try:
                await asyncio.wait_for(self.stats(), self._supervision.ping_timeout_s)
            except TimeoutError:
                log.error("worker does not answer; killing it")
                if self._process is not None:
                    self._process.kill()
            except errors.InfernoError:
                continue

    async def _stop_process(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, _TERMINATE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
