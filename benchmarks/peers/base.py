"""What a peer is: something that loads a model and does a workload's work."""

from __future__ import annotations

import abc
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.exchange import Exchange, Failed
from benchmarks.measurement import Metrics, cpu_per_token
from benchmarks.processes import Watch
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import Setting, Workload

#: Bounds one round of one workload, and a start.
LIMIT_S = 900.0
ROOT = Path(__file__).resolve().parent.parent.parent


#: How long threads that wait for one another spin, the same as in Inferno's worker processes. As libgomp comes,
#: whatever else runs, the measuring client included, costs llama.cpp's programs most of their speed.
_SPIN = {"GOMP_SPINCOUNT": "1000"}


@dataclass(frozen=True)
class Options:
    """The same for all peers. `llama_arguments` are added to llama-server's when it is tuned."""

    threads: int
    programs: Path  # llama.cpp's
    llama_arguments: tuple[str, ...] = ()


class Running(abc.ABC):
    """A peer with a model, ready for work."""

    @abc.abstractmethod
    def warm_up(self, setting: Setting, vocabulary: Vocabulary) -> None:
        """A little work that is not measured. Raises Failed."""

    @abc.abstractmethod
    def measure(self, workload: Workload, vocabulary: Vocabulary, round_number: int) -> Metrics:
        """One round. Raises NotSupported, Failed."""


class RunningProcess(Running):
    """A process of its own, whose processor time and memory are measured with it. `started` is when it was, by
    time.perf_counter()."""

    def __init__(self, process: subprocess.Popen[bytes], started: float) -> None:
        self.process, self.started = process, started

    @abc.abstractmethod
    def exchanges(self, workload: Workload, vocabulary: Vocabulary, round_number: int) -> list[Exchange]: ...

    def measure(self, workload: Workload, vocabulary: Vocabulary, round_number: int) -> Metrics:
        with Watch(self.process.pid) as watch:
            exchanges = self.exchanges(workload, vocabulary, round_number)
        metrics = workload.metrics(exchanges, self.started) | watch.usage
        return metrics | cpu_per_token(metrics, workload.headline)


class Peer(abc.ABC):
    """`name` is what results call it; `title` is for people."""

    name: str
    title: str

    def prepare(self, options: Options) -> None:  # noqa: B027  most need nothing
        """Install or find what it needs. Raises Failed with a sentence that says what is missing."""

    @abc.abstractmethod
    def start(self, model: Path, setting: Setting, options: Options) -> AbstractContextManager[Running]:
        """Raises Failed when it does not start."""


def plain_environment() -> dict[str, str]:
    """Without what this shell has set for either server."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("INFERNO_", "LLAMA_ARG_"))}


def tuned_environment() -> dict[str, str]:
    return {**_SPIN, **plain_environment()}


@contextlib.contextmanager
def spawned(
    command: list[str], log: Path, environment: dict[str, str], *, talks: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is stopped in the end, by its id. One that `talks` has pipes for its input and output."""
    pipe = subprocess.PIPE if talks else None
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe or file, stderr=file)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def killed_after(process: subprocess.Popen[bytes], seconds: float = LIMIT_S) -> Iterator[None]:
    """Ends a process that is waited for and does not answer."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-500:].strip()


def existing(program: Path) -> Path:
    if not program.exists():
        raise Failed(f"{program} is not there: `make peers` builds it")
    return program
