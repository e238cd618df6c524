"""From the start of a process to its first token, and the memory it has taken once it has been busy."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.client import Client, closed_loop
from benchmarks.exchange import Exchange, Job
from benchmarks.measurement import Metrics, summary
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import Setting, Workload


@dataclass(frozen=True, kw_only=True)
class ColdStart(Workload):
    fresh: bool = True
    clients: int
    prompt: int  # tokens
    new: int

    @property
    def title(self) -> str:
        return f"A new process, then {self.clients} clients with prompts of {self.prompt} tokens, {self.new} new"

    @property
    def setting(self) -> Setting:
        return Setting(self.clients, self.prompt + self.new + 16)

    async def drive(self, client: Client, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        first = await closed_loop(client, Job([[vocabulary.prompt(16, self.name, round_number)]], 2))
        prompts = [[vocabulary.prompt(self.prompt, self.name, round_number, i)] for i in range(self.clients)]
        return first + await closed_loop(client, Job(prompts, self.new))

    def metrics(self, exchanges: list[Exchange], started: float) -> Metrics:
        first, *others = exchanges
        return {**summary(others), "load_to_first_token_ms": (first.times[0][0] - started) * 1000}
