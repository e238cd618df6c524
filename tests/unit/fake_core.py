"""An engine without a model: the interface of `inferno._core.Engine`, in Python, and nothing it does takes time.

A token is a byte of UTF-8, and two bytes at most by what it promises. A sequence's text is its prompt, one word a step,
repeated up to `max_tokens` words. Steps are taken by `step()`, or, in an engine that runs by itself, inside `submit`.
What a sequence does otherwise is told by its prompt:

    hang      says "hang" and never ends by itself
    boom      cannot be tokenised: an unexpected exception
    broken    ends in an error after its first word
    die       the process dies of SIGKILL while it is being submitted; in a worker only
    garbled   says something that cannot be sent
    gate PATH is tokenised once the FIFO of that path has been opened for writing
    environ   the names of the environment's variables
    fds       what the process has open
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from inferno import errors

INFO = {
    "architecture": "fake",
    "name": "Fake",
    "description": "fake 0M",
    "quantization": "none",
    "n_params": 0,
    "size_bytes": 0,
    "context_train": 4096,
    "n_vocab": 256,
    "n_embd": 2,
    "n_layer": 0,
    "can_generate": True,
    "can_embed": True,
    "pooling": "mean",
    "chat_template": "",
    "metadata": {},
}
MEMORY = 1000


@dataclass
class _Sequence:
    id: int
    prompt: str
    sampling: dict[str, Any]
    said: int = 0
    words: list[str] = field(default_factory=list)


class FakeCore:
    def __init__(
        self,
        path: str = "fake",
        options: dict[str, Any] | None = None,
        progress: Callable[[float], bool] | None = None,
        *,
        runs_by_itself: bool = True,
        **info: Any,
    ) -> None:
        if path == "bad":
            raise errors.InvalidRequest("The file is not a valid GGUF model.", field="model")
        if path == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        for step in range(3):
            if progress is not None:
                progress((step + 1) / 3)
        options = options or {}
        self.info = {**INFO, **info}
        self.context_size: int = options.get("context_size", 64)
        self.max_token_bytes = 2
        self.memory = {"total_bytes": MEMORY}
        self.submitted: list[dict[str, Any]] = []
        self.cancelled: list[int] = []
        self.closed_with: float | None = None
        self._capacity: int = options.get("queue_size", 512)
        self._runs_by_itself = runs_by_itself
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._lock = threading.RLock()
        self._events: list[tuple[Any, ...]] = []
        self._open: dict[int, _Sequence] = {}
        self._next_id = 1
        self._steps = 0

    def __del__(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)

    @property
    def wake_fd(self) -> int:
        return self._read_fd

    @property
    def open_ids(self) -> list[int]:
        return sorted(self._open)

    # ---- text and tokens ----------------------------------------------------------------------------------------

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        if text == "boom":
            raise RuntimeError("tokeniser failure with /a/path in it")
        if text.startswith("gate "):
            with open(text.removeprefix("gate ")):
                return [0]
        return list(text.encode())

    def detokenize(self, tokens: Sequence[int], render_special: bool = False) -> str:
        return bytes(tokens).decode(errors="replace")

    def render_chat(self, messages: Sequence[tuple[str, str]]) -> tuple[list[int], list[str]]:
        return self.tokenize(" ".join(content for _, content in messages)), ["<end>"]

    # ---- work ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sequence[dict[str, Any]],
        priority: int = 0,
        timeout_s: float | None = None,
        cache_salt: int = 0,
    ) -> list[int]:
        if any(self.detokenize(prompt) == "die" for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        with self._lock:
            self._check_room(len(prompts))
            new = [
                _Sequence(self._take_id(), self.detokenize(prompt), params)
                for prompt, params in zip(prompts, sampling, strict=True)
            ]
            for sequence in new:
                sequence.words = _words(sequence)
                self._open[sequence.id] = sequence
            self.submitted.append(
                {"sampling": list(sampling), "priority": priority, "timeout_s": timeout_s, "cache_salt": cache_salt}
            )
        if self._runs_by_itself:
            self._run_out()
        return [sequence.id for sequence in new]

    def submit_embeddings(
        self, inputs: Sequence[Sequence[int]], priority: int = 0, timeout_s: float | None = None
    ) -> list[int]:
        with self._lock:
            self._check_room(len(inputs))
            ids = []
            for item in inputs:
                ids.append(self._take_id())
                vector = struct.pack("<2f", 1.0, float(len(item)))
                self._say((1, ids[-1], "stop", (len(item), 0, 0), (0.0, 0.0, 0.0), "", None, vector))
        return ids

    def step(self) -> bool:
        """One word of every open sequence; False when there was nothing to do."""
        with self._lock:
            self._steps += bool(self._open)
            moved = [self._advance(sequence) for sequence in list(self._open.values())]
        return any(moved)

    def cancel(self, sequence_ids: Sequence[int]) -> None:
        with self._lock:
            self.cancelled += sequence_ids
            for sequence_id in sequence_ids:
                if sequence_id in self._open:
                    self._finish(self._open[sequence_id], "cancelled")

    def drain(self) -> list[tuple[Any, ...]]:
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read_fd, 1 << 16)
            events, self._events = self._events, []
        return events

    def wait(self, timeout_s: float) -> bool:
        return bool(select.select([self._read_fd], [], [], timeout_s)[0])

    def stats(self) -> dict[str, Any]:
        with self._lock:
            return {"running": len(self._open), "waiting": 0, "steps_total": self._steps}

    def close(self, grace_s: float = 0.0) -> None:
        with self._lock:
            self.closed_with = grace_s
            if grace_s > 0:
                self._run_out()
            for sequence in list(self._open.values()):
                self._finish(sequence, "cancelled")

    # ---- inside -------------------------------------------------------------------------------------------------

    def _check_room(self, n_new: int) -> None:
        if self.closed_with is not None:
            raise errors.ServiceUnavailable("The model is being unloaded.")
        if len(self._open) + n_new > self._capacity:
            raise errors.ServiceUnavailable("The queue is full.")

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _run_out(self) -> None:
        while self.step():
            pass

    def _advance(self, sequence: _Sequence) -> bool:
        if sequence.said < len(sequence.words):
            said = sequence.words[sequence.said]
            self._say((0, sequence.id, object() if said == "garbled" else said, 1, []))
            sequence.said += 1
        elif sequence.prompt == "hang":
            return False
        elif sequence.prompt == "broken":
            self._finish(sequence, "error", ("INFERENCE_FAILED", "The model computed no numbers."))
        else:
            self._finish(sequence, "length")
        return True

    def _finish(self, sequence: _Sequence, reason: str, error: tuple[str, str] | None = None) -> None:
        del self._open[sequence.id]
        usage = (len(sequence.prompt), sequence.said, 0)
        self._say((1, sequence.id, reason, usage, (1.0, 2.0, 3.0), "", error, None))

    def _say(self, event: tuple[Any, ...]) -> None:
        if not self._events:
            os.write(self._write_fd, b"x")
        self._events.append(event)


def _words(sequence: _Sequence) -> list[str]:
    if sequence.prompt == "environ":
        return [" ".join(os.environ)]
    if sequence.prompt == "fds":
        return [" ".join(os.listdir("/proc/self/fd"))]
    if sequence.prompt in ("hang", "broken", "garbled"):
        return [sequence.prompt]
    words = sequence.prompt.split(" ")
    return [words[i % len(words)] + " " for i in range(sequence.sampling.get("max_tokens", 3))]
