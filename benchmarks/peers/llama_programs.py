"""llama.cpp's benchmark programs: what its kernels reach when nothing is sampled, detokenized or served."""

from __future__ import annotations

import abc
import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.exchange import Failed, Job
from benchmarks.measurement import Metrics
from benchmarks.peers.base import LIMIT_S, Options, Peer, Running, existing, tuned_environment
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import JobWorkload, Setting, Workload


class Program(Peer):
    """Runs once for each round, with as many prompts at once as a job has clients."""

    def prepare(self, options: Options) -> None:
        existing(options.programs / self.name)

    @contextlib.contextmanager
    def start(self, model: Path, setting: Setting, options: Options) -> Iterator[ProgramRuns]:
        yield ProgramRuns(self, [str(options.programs / self.name), "-m", str(model), "-t", str(options.threads)])

    @abc.abstractmethod
    def arguments(self, job: Job) -> list[object]: ...

    @abc.abstractmethod
    def metrics(self, job: Job, row: dict[str, Any]) -> Metrics:
        """`row` is what the program printed as JSON."""


class ProgramRuns(Running):
    def __init__(self, program: Program, command: list[str]) -> None:
        self._program, self._command = program, command

    def warm_up(self, setting: Setting, vocabulary: Vocabulary) -> None:
        """The program does it itself."""

    def measure(self, workload: Workload, vocabulary: Vocabulary, round_number: int) -> Metrics:
        assert isinstance(workload, JobWorkload), f"{workload.name} needs HTTP"
        job = workload.job(vocabulary, round_number)
        return self._program.metrics(job, self._run([str(item) for item in self._program.arguments(job)]))

    def _run(self, arguments: list[str]) -> dict[str, Any]:
        try:
            command = [*self._command, *arguments]
            done = subprocess.run(command, env=tuned_environment(), capture_output=True, text=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Failed("it did not end in time") from None
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not rows:
            raise Failed(f"it ended with {done.returncode}: {done.stderr[-500:].strip()}")
        return dict(rows[0])


class BatchedBench(Program):
    name = "llama-batched-bench"
    title = "llama-batched-bench"

    def arguments(self, job: Job) -> list[object]:
        batch, prompt, new = _sizes(job)
        sizes: list[object] = ["-c", batch * (prompt + new) + 256, "-npp", prompt, "-ntg", new, "-npl", batch]
        return [*sizes, "-b", 2048, "-ub", 512, "--output-format", "jsonl"]

    def metrics(self, job: Job, row: dict[str, Any]) -> Metrics:
        batch, prompt, new = _sizes(job)
        return {
            "wall_s": row["t"],
            "input_tok_s": batch * prompt / row["t"],
            "output_tok_s": batch * new / row["t"],
            "prefill_tok_s": row["speed_pp"],
            "decode_tok_s": row["speed_tg"],
        }


class LlamaBench(Program):
    name = "llama-bench"
    title = "llama-bench"

    def arguments(self, job: Job) -> list[object]:
        return ["-p", _sizes(job)[1], "-n", 0, "-r", len(job.prompts()), "-o", "jsonl"]

    def metrics(self, job: Job, row: dict[str, Any]) -> Metrics:
        return {"input_tok_s": row["avg_ts"]}


def _sizes(job: Job) -> tuple[int, int, int]:
    """Prompts at once, tokens of each, tokens to generate for each."""
    return len(job.clients), len(job.clients[0][0]), job.max_tokens
