"""Engines without HTTP, each in a process of its own that does jobs: a job is a line of JSON on its input, its
exchanges a line on its output. It says `ready` once it has loaded the model. Times are the child's clock's."""

from __future__ import annotations

import abc
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.exchange import Exchange, Failed, Job
from benchmarks.peers.base import Options, Peer, RunningProcess, killed_after, last_words, spawned, tuned_environment
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import JobWorkload, Setting, Workload, warm_up

_exchanges = msgspec.json.Decoder(list[Exchange])


class Child(RunningProcess):
    def __init__(self, process: subprocess.Popen[bytes], started: float, log: Path) -> None:
        super().__init__(process, started)
        self._log = log
        self._line()

    def exchanges(self, workload: Workload, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        assert isinstance(workload, JobWorkload), f"{workload.name} needs HTTP"
        return self._run(workload.job(vocabulary, round_number))

    def warm_up(self, setting: Setting, vocabulary: Vocabulary) -> None:
        self._run(warm_up(setting, vocabulary))

    def _run(self, job: Job) -> list[Exchange]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it last said is in the log
            self.process.stdin.write(msgspec.json.encode(job) + b"\n")
            self.process.stdin.flush()
        return _exchanges.decode(self._line())

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        with killed_after(self.process):
            line = self.process.stdout.readline()
        if not line:
            raise Failed(f"it ended: {last_words(self._log)}")
        return line


class ChildPeer(Peer):
    @abc.abstractmethod
    def command(self, model: Path, setting: Setting, options: Options) -> list[str]: ...

    @contextlib.contextmanager
    def start(self, model: Path, setting: Setting, options: Options) -> Iterator[Child]:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            log, started = Path(directory) / "log", time.perf_counter()
            with spawned(self.command(model, setting, options), log, tuned_environment(), talks=True) as process:
                yield Child(process, started, log)
