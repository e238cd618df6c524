"""Several answers to one prompt."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.client import Client, completion
from benchmarks.exchange import Exchange
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import Setting, Workload


@dataclass(frozen=True, kw_only=True)
class Choices(Workload):
    n: int
    requests: int
    prompt: int  # tokens
    new: int

    @property
    def title(self) -> str:
        return f"{self.n} answers to a prompt of {self.prompt} tokens, {self.new} new each"

    @property
    def setting(self) -> Setting:
        return Setting(self.n, self.prompt + self.new + 16)

    async def drive(self, client: Client, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        async with client.connection() as connection:
            prompts = [vocabulary.prompt(self.prompt, self.name, round_number, i) for i in range(self.requests)]
            bodies = [completion(prompt, self.new, n=self.n) for prompt in prompts]
            return [await connection.stream("/v1/completions", body) for body in bodies]
