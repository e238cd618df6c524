"""A worker process: one engine and a socket. Started by `inferno.engine.process` as `python -m`, never by hand.

Threads: the main thread reads frames and answers what takes no time; one thread waits for the engine's events and
sends them; loading, tokenising and closing have threads of their own, so that neither a long prompt nor a long
close delays a text that is being generated or the answer to a ping. Long prompts wait for each other and delay no
short one. The process exits when its socket closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from inferno import errors
from inferno.engine import frames
from inferno.engine.core import OpenCore, open_core
from inferno.engine.submission import Submitter
from inferno.request import EngineStats, ModelInfo, Placement, Prompt

if TYPE_CHECKING:
    from inferno._core import Engine as Core

_TOKENIZER_THREADS = 2
_LONG_CHARACTERS = 100_000  # a fifth of a second, when it comes to the worst
_READ_SIZE = 1 << 20
_OOM_SCORE = 500  # the kernel's range is -1000 to 1000; the first to go when memory runs out
_PR_SET_PDEATHSIG = 1


class Worker:
    """Serves one engine over one connected socket."""

    def __init__(self, connection: socket.socket, open_core: OpenCore) -> None:
        self._connection = connection
        self._open_core = open_core
        self._sending = threading.Lock()
        self._reader = frames.FrameReader()
        self._tokenizers = ThreadPoolExecutor(_TOKENIZER_THREADS, "tokenize")
        self._long_tokenizer = ThreadPoolExecutor(1, "tokenize-long")
        self._accepting: dict[int, Future[None]] = {}  # by call
        # Set together, before Ready is sent.
        self._core: Core | None = None
        self._submitter: Submitter | None = None

    def serve(self) -> None:
        """Until the socket closes."""
        while data := self._receive():
            for body in self._reader.feed(data):
                self._carry_out(frames.decode_to_worker(body))

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(_READ_SIZE)
        except ConnectionError:
            return b""

    def _carry_out(self, message: frames.ToWorker) -> None:
        match message:
            case frames.Load(path, options):
                _in_thread(self._load, path, options)
            case frames.Submit(call, request):
                self._begin(call, request.prompts, lambda to: to.submit(request))
            case frames.Embed(call, query, first):
                self._begin(call, query.inputs, lambda to: to.submit_embeddings(query, first))
            case frames.Withdraw(call):
                self._withdraw(call)
            case frames.Cancel(sequence_ids):
                if self._core is not None:
                    self._core.cancel(sequence_ids)
            case frames.AskStats(call):
                self._send(frames.encode(frames.Stats(call, self._stats())))
            case frames.Close(grace_s):
                _in_thread(self._close, grace_s)

    def _begin(
        self, call: int, prompts: Sequence[Prompt], submit: Callable[[Submitter], tuple[list[int], int]]
    ) -> None:
        is_long = sum(prompt.n_characters for prompt in prompts) > _LONG_CHARACTERS
        tokenizers = self._long_tokenizer if is_long else self._tokenizers
        accepting = self._accepting[call] = tokenizers.submit(_or_exit, self._accept, call, submit)
        accepting.add_done_callback(lambda _: self._accepting.pop(call))

    def _withdraw(self, call: int) -> None:
        accepting = self._accepting.get(call)
        if accepting is not None and accepting.cancel():
            refusal = errors.ServiceUnavailable("The request has been withdrawn.")
            self._send(frames.encode(frames.Refused(call, frames.Failure.of(refusal))))

    # ---- each in some thread ------------------------------------------------------------------------------------

    def _load(self, path: str, options: dict[str, Any]) -> None:
        try:
            core = self._open_core(path, options, self._report)
            info = msgspec.convert(core.info, ModelInfo)
            memory = core.memory
            placement = msgspec.convert(memory, Placement)
            ready = frames.encode(frames.Ready(info, core.context_size, memory["total_bytes"], placement))
        except Exception as error:
            self._send(frames.encode(frames.LoadFailed(frames.Failure.of(error))))
            return
        self._submitter = Submitter(core, info)
        self._core = core
        _in_thread(self._send_events_forever, core)
        self._send(ready)

    def _report(self, fraction: float) -> bool:
        self._send(frames.encode(frames.Progress(fraction)))
        return True

    def _accept(self, call: int, submit: Callable[[Submitter], tuple[list[int], int]]) -> None:
        try:
            assert self._submitter is not None, "the parent waits for Ready"
            answer = frames.encode(frames.Accepted(call, *submit(self._submitter)))
        except Exception as error:
            answer = frames.encode(frames.Refused(call, frames.Failure.of(error)))
        self._send(answer)

    def _send_events_forever(self, core: Core) -> None:
        while True:
            if core.wait(3600.0):
                self._send_events(core)

    def _close(self, grace_s: float) -> None:
        if self._core is not None:
            self._core.close(grace_s)
            self._send_events(self._core)
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # wakes serve(), which then returns

    # ---- shared -------------------------------------------------------------------------------------------------

    def _stats(self) -> EngineStats:
        return EngineStats() if self._core is None else msgspec.convert(self._core.stats(), EngineStats)

    def _send_events(self, core: Core) -> None:
        with self._sending:  # drained under the lock, so that frames leave in the order of the events
            for frame in frames.encode_events(core.drain()):
                self._send_locked(frame)

    def _send(self, frame: bytearray) -> None:
        with self._sending:
            self._send_locked(frame)

    def _send_locked(self, frame: bytearray) -> None:
        # When the parent is gone, serve() notices and ends the process.
        with contextlib.suppress(OSError):
            self._connection.sendall(frame)


def _in_thread(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=_or_exit, args=(function, *arguments), daemon=True).start()


def _or_exit(function: Callable[..., None], *arguments: Any) -> None:
    """A worker that lost one of its threads would be deaf or dumb: let it be replaced instead."""
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def settle_in() -> None:
    """Die with the parent, be the first to go when memory runs out, leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def run(descriptor: int, open_core: OpenCore) -> None:
    """Serve on the inherited socket, then leave without waiting for anything: the model's memory goes at once."""
    settle_in()
    with socket.socket(fileno=descriptor) as connection:
        _or_exit(Worker(connection, open_core).serve)
    sys.stderr.flush()
    os._exit(0)


def _open_quietly(path: str, options: dict[str, Any], progress: Callable[[float], bool] | None) -> Core:
    from inferno import _core

    _core.set_log_level(2)  # warnings and errors, to stderr
    return open_core(path, options, progress)


if __name__ == "__main__":
    run(int(sys.argv[1]), _open_quietly)
