"""The engine in a supervised child process: a crash there ends that model's streams and nothing else."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from inferno import errors
from inferno.engine import embedding, frames, openmp
from inferno.engine.generation import EmbeddingJob, Generation
from inferno.engine.process import WORKER_COMMAND, ReportProgress, WorkerProcess
from inferno.engine.protocol import EngineState
from inferno.engine.restarts import RestartPolicy, Restarts
from inferno.engine.streams import Streams
from inferno.request import EmbeddingRequest, Embeddings, EngineStats, ErrorInfo, ModelInfo, Placement, Request

log = logging.getLogger(__name__)

#: What a worker gets of our environment: what programs need to run, and the knobs of compute libraries.
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH",
    "PYTHONHOME", "VIRTUAL_ENV", "GLIBC_TUNABLES",
)  # fmt: skip
_PASSED_ON_PREFIXES = ("GGML_", "OMP_", "GOMP_", "KMP_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "VK_")
_NEVER_PASSED_ON = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a worker may be silent. Seconds."""

    ping_interval_s: float = 5.0
    ping_timeout_s: float = 15.0
    #: A worker that has work and takes no step for this long is stuck.
    stall_s: float = 300.0
    #: For each of: exit when asked to, exit upon SIGTERM.
    exit_s: float = 5.0
    #: Megabytes a second that a slow disk takes of prefixes that are kept between runs.
    disk_mb_s: float = 50.0

    def to_exit_s(self, options: Mapping[str, Any]) -> float:
        """What a worker with those engine options is given to exit when asked to."""
        writes = bool(options.get("prefix_store_path"))
        return self.exit_s + (options.get("prefix_store_mb") or 0) / self.disk_mb_s * writes


class WorkerEngine:
    """Implements `inferno.engine.protocol.Engine`. Everything here runs on one event loop."""

    def __init__(
        self,
        path: str,
        options: Mapping[str, Any],
        *,
        policy: RestartPolicy,
        patience: Patience,
        command: Sequence[str],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._path = path
        self._name = Path(path).stem  # for the log
        self._options = dict(options)
        self._restarts = Restarts(policy)
        self._patience = patience
        self._command = command
        self._clock = clock
        self._sleep = sleep
        self._streams = Streams()
        self._process: WorkerProcess | None = None
        self._loaded: frames.Ready | None = None
        self._load_s = 0.0
        self._retry_at = 0.0
        self._asked_at: float | None = None  # when the ping that has no answer yet was sent
        self._supervisor: asyncio.Task[None] | None = None
        self._state: EngineState = "loading"
        self.restarts = 0
        self.last_error: str | None = None

    @classmethod
    async def start(
        cls,
        path: str,
        options: Mapping[str, Any] | None = None,
        progress: ReportProgress | None = None,
        *,
        policy: RestartPolicy | None = None,
        patience: Patience | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> WorkerEngine:
        """Load the GGUF file at `path` in a new process; `progress` gets fractions from 0 to 1.

        Raises what loading raises, and InferenceFailed when the process dies of it; no process is left behind then.
        """
        engine = cls(
            path,
            options or {},
            policy=policy or RestartPolicy(),
            patience=patience or Patience(),
            command=command,
            clock=clock,
            sleep=sleep,
        )
        process = await engine._launch(progress)
        engine._supervisor = asyncio.create_task(engine._supervise(process))
        return engine

    # ---- facts --------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        return self._ready.info

    @property
    def context_size(self) -> int:
        return self._ready.context_size

    @property
    def memory_bytes(self) -> int:
        return self._ready.memory_bytes

    @property
    def placement(self) -> Placement:
        return self._ready.placement

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def healthy(self) -> bool:
        if self._state != "ready" or self._process is None or not self._process.connected:
            return False
        return self._asked_at is None or self._clock() - self._asked_at < self._patience.ping_interval_s

    @property
    def pid(self) -> int | None:
        """Of the process that lives now."""
        return None if self._process is None else self._process.pid

    @property
    def _ready(self) -> frames.Ready:
        assert self._loaded is not None, "start() returns once the model is loaded"
        return self._loaded

    # ---- work ---------------------------------------------------------------------------------------------------

    async def submit(self, request: Request) -> Generation:
        process = self._serving()
        with self._streams.expect():
            taken = await self._accepted(process, lambda call: frames.Submit(call, request))
            generation = Generation(
                request, taken.sequence_ids, taken.prompt_tokens, lambda ids: process.tell(frames.Cancel(ids))
            )
            self._streams.add(generation)
        return generation

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        done = []
        for first, part in embedding.parts(request):
            job = await self._submit_embeddings(part, first)
            done.append(await job.result())
        return embedding.joined(request.model, done)

    async def stats(self) -> EngineStats:
        """Raises ServiceUnavailable when the worker does not answer."""
        asked = self._serving().ask(frames.AskStats)
        done, _ = await asyncio.wait({asked}, timeout=self._patience.ping_timeout_s)
        if not done:
            raise errors.ServiceUnavailable("The model's worker process does not answer.", retry_after=1)
        stats: EngineStats = asked.result()
        return msgspec.structs.replace(stats, memory_bytes=self.memory_bytes, placement=self.placement)

    async def close(self, grace_s: float = 0.0) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        self._state = "closed"
        if self._process is not None:
            await self._process.close(grace_s, self._patience.to_exit_s(self._options))
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        self._streams.fail_all(ErrorInfo("SERVICE_UNAVAILABLE", "The model has been unloaded."))

    async def _submit_embeddings(self, request: EmbeddingRequest, first: int) -> EmbeddingJob:
        process = self._serving()
        with self._streams.expect():
            taken = await self._accepted(process, lambda call: frames.Embed(call, request, first))
            job = EmbeddingJob(request, taken.sequence_ids, lambda ids: process.tell(frames.Cancel(ids)))
            self._streams.add(job)
        return job

    async def _accepted(self, process: WorkerProcess, question: Callable[[int], frames.ToWorker]) -> frames.Accepted:
        try:
            taken = await process.accepted(question)
        except UnicodeEncodeError:
            raise errors.InvalidRequest("The request must be valid Unicode text.") from None
        if process is not self._process:
            # It died in between; its sequences have been failed before they were known.
            raise errors.InferenceFailed("The model's worker process ended unexpectedly.")
        return taken

    def _serving(self) -> WorkerProcess:
        if self._state == "ready" and self._process is not None and self._process.connected:
            return self._process
        if self._state in ("ready", "restarting"):
            wait_s = max(0.0, self._retry_at - self._clock()) + self._load_s
            raise errors.ServiceUnavailable(
                "The model's worker process is being restarted.", retry_after=math.ceil(wait_s) or 1
            )
        if self._state == "failed":
            raise errors.ServiceUnavailable("The model's worker process failed too often; load the model again.")
        raise errors.ServiceUnavailable("The model is being unloaded.", retry_after=1)

    # ---- supervision --------------------------------------------------------------------------------------------

    async def _launch(self, progress: ReportProgress | None = None) -> WorkerProcess:
        """A new process that has loaded the model. It becomes the one that serves."""
        started = self._clock()
        process = await WorkerProcess.spawn(self._command, worker_environment(os.environ), self._streams.feed)
        self._process = process
        watcher = asyncio.create_task(self._watch(process))
        try:
            self._loaded = await process.load(self._path, self._options, progress)
        except BaseException:
            self._process = None
            process.kill()
            await asyncio.shield(process.ended())
            raise
        finally:
            watcher.cancel()
        self._load_s = self._clock() - started
        self._asked_at = None
        if self._state != "closed":
            self._state = "ready"
        return process

    async def _supervise(self, process: WorkerProcess | None) -> None:
        while process is not None:
            started = self._clock()
            watcher = asyncio.create_task(self._watch(process))
            try:
                manner = await process.ended()
            finally:
                watcher.cancel()
            if self._state == "closed":
                return
            self._lost(manner)
            process = await self._restarted(self._clock() - started)

    def _lost(self, manner: str) -> None:
        self._process = None
        self._state = "restarting"
        self.last_error = f"The worker process ended: {manner}."
        log.error("%s: the worker process ended: %s; %d sequences lost", self._name, manner, len(self._streams))
        self._streams.fail_all(ErrorInfo("INFERENCE_FAILED", "The model's worker process ended unexpectedly."))

    async def _restarted(self, lived_s: float) -> WorkerProcess | None:
        while (delay := self._restarts.after_crash(self._clock(), lived_s)) is not None:
            self._retry_at = self._clock() + delay
            log.warning("%s: starting the worker process again in %.1f s", self._name, delay)
            await self._sleep(delay)
            try:
                process = await self._launch()
            except errors.InfernoError as error:
                self.last_error = error.message
                log.warning("%s: the worker process did not start: %s", self._name, error.message)
                lived_s = 0.0
            else:
                self.restarts += 1
                return process
        self._state = "failed"
        log.error("%s: the worker process failed too often and is not started again", self._name)
        return None

    async def _watch(self, process: WorkerProcess) -> None:
        """Kill a process that does not answer in time or is stuck; the supervisor sees it die."""
        progress = _Progress(self._clock())
        while True:
            await self._sleep(self._patience.ping_interval_s)
            self._asked_at = self._clock()
            answer = process.ask(frames.AskStats)
            timer = asyncio.ensure_future(self._sleep(self._patience.ping_timeout_s))
            try:
                await asyncio.wait({answer, timer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
            if not answer.done():
                log.error("%s: the worker process does not answer; it is killed", self._name)
                process.kill()
                return
            self._asked_at = None
            if answer.exception() is not None:
                return
            if progress.stalled_s(answer.result(), self._clock()) > self._patience.stall_s:
                log.error("%s: the worker process is stuck; it is killed", self._name)
                process.kill()
                return


class _Progress:
    """Notices an engine that has work and does nothing."""

    def __init__(self, now: float) -> None:
        self._done: tuple[float, ...] = ()
        self._since = now

    def stalled_s(self, stats: EngineStats, now: float) -> float:
        done = (stats.steps_total, stats.rows_total, stats.completion_tokens_total, stats.busy_ms_total)
        if done != self._done or not (stats.running or stats.waiting):
            self._done, self._since = done, now
        return now - self._since


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of `environ` that a worker gets; secrets stay behind."""
    return {**openmp.ENVIRONMENT, **{name: value for name, value in environ.items() if _passed_on(name)}}


def _passed_on(name: str) -> bool:
    if any(word in name.upper() for word in _NEVER_PASSED_ON):
        return False
    return name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
