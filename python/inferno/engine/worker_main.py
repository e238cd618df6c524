"""A worker process: one engine and a socket. Started by `inferno.engine.worker` as `python -m`, never by hand.

It exits when the socket closes. Its main thread moves frames; requests are tokenised in a small pool so that a
long prompt does not hold up the texts that are being generated.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import selectors
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from inferno import _core, errors
from inferno.engine import frames, submission
from inferno.request import EmbeddingRequest, EngineStats, ModelInfo, Request

_TOKENIZER_THREADS = 2
_READ_SIZE = 1 << 20


def failure_of(error: BaseException) -> frames.Failure:
    """What the other side is told; an unexpected exception says nothing about itself."""
    if isinstance(error, errors.InfernoError):
        return frames.Failure(error.code, error.message, error.details)
    return frames.Failure("INFERENCE_FAILED", "The engine failed.", {})


class Worker:
    """Serves one engine over one connected socket."""

    def __init__(self, connection: socket.socket, core: Any) -> None:
        self._connection = connection
        self._core = core
        self._sending = threading.Lock()
        self._pool = ThreadPoolExecutor(_TOKENIZER_THREADS, "tokenize")
        self._reader = frames.FrameReader()

    def send(self, message: Any) -> None:
        with self._sending:
            self._connection.sendall(frames.encode(message))

    def serve(self) -> None:
        """Until the socket closes or Close has been carried out."""
        selector = selectors.DefaultSelector()
        selector.register(self._connection, selectors.EVENT_READ)
        selector.register(self._core.wake_fd, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not self._connection:
                    self._send_events()
                elif not self._read():
                    return

    def _send_events(self) -> None:
        # Laid out as frames.Events; the engine's own tuples go on the wire untouched.
        self.send((frames.EVENTS_TAG, self._core.drain()))

    def _read(self) -> bool:
        data = self._connection.recv(_READ_SIZE)
        if not data:
            return False
        for body in self._reader.feed(data):
            self._carry_out(frames.decode_to_worker(body))
        return True

    def _carry_out(self, message: frames.ToWorker) -> None:
        match message:
            case frames.Submit(call, request) | frames.Embed(call, request):
                self._pool.submit(self._accept, call, request)
            case frames.Cancel(sequence_ids):
                self._core.cancel(sequence_ids)
            case frames.AskStats(call):
                self.send(frames.Stats(call, msgspec.convert(self._core.stats(), EngineStats)))
            case frames.Close(grace_s):
                # In a thread of its own, for the texts that end meanwhile are still to be sent.
                threading.Thread(target=self._close, args=(grace_s,), daemon=True).start()

    def _accept(self, call: int, request: Request | EmbeddingRequest) -> None:
        try:
            if isinstance(request, Request):
                ids = submission.submit(self._core, request)
            else:
                ids = submission.submit_embeddings(self._core, request)
            self.send(frames.Accepted(call, ids))
        except OSError:
            return  # the server is gone, and so is whoever asked
        except Exception as error:
            self.send(frames.Refused(call, failure_of(error)))

    def _close(self, grace_s: float) -> None:
        self._core.close(grace_s)
        self._send_events()
        self._connection.shutdown(socket.SHUT_RDWR)  # wakes serve(), which then returns


def load(connection: socket.socket, path: str, options: dict[str, Any]) -> Any:
    """The loaded engine, announced to the parent; None when the file cannot be loaded."""
    try:
        core = _core.Engine(path, options)
    except Exception as error:
        connection.sendall(frames.encode(frames.LoadFailed(failure_of(error))))
        return None
    info = msgspec.convert(core.info, ModelInfo)
    ready = frames.Ready(info, core.context_size, core.memory["total_bytes"])
    connection.sendall(frames.encode(ready))
    return core


def settle_in() -> None:
    """Die with the parent, be the first to go when memory runs out, leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("800")


def main() -> None:
    settle_in()
    path, options, descriptor = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    with socket.socket(fileno=descriptor) as connection:
        core = load(connection, path, options)
        if core is None:
            return
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            Worker(connection, core).serve()
        core.close(0)


if __name__ == "__main__":
    main()
