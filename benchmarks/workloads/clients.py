"""Prompts that share nothing: so many clients at once, or one that sends long prompts."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.exchange import Job
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import JobWorkload, Setting, counted


@dataclass(frozen=True, kw_only=True)
class UniquePrompts(JobWorkload):
    clients: int
    requests: int  # of each client
    prompt: int  # tokens
    new: int

    @property
    def title(self) -> str:
        return f"{counted(self.clients, 'client')}, unique prompts of {self.prompt} tokens, {self.new} new"

    @property
    def setting(self) -> Setting:
        return Setting(self.clients, self.prompt + self.new + 16)

    def job(self, vocabulary: Vocabulary, round_number: int) -> Job:
        def prompts(client: int) -> list[list[int]]:
            seeds = range(self.requests)
            return [vocabulary.prompt(self.prompt, self.name, round_number, client, seed) for seed in seeds]

        return Job([prompts(client) for client in range(self.clients)], self.new)
