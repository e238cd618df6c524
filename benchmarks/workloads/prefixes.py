"""Prompts that begin alike: one beginning for all, several of unequal popularity, or a few-shot head."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.exchange import Job
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import JobWorkload, Setting, counted


@dataclass(frozen=True, kw_only=True)
class SharedPrefixes(JobWorkload):
    """Each prompt is one of `prefixes` beginnings, the k-th with a probability proportional to 1/k, and tokens of its
    own. The beginnings are new in each round, so that each round begins cold."""

    lead: str  # of the title
    prefixes: int
    prefix: int  # tokens
    own: int
    new: int
    clients: int
    requests: int  # of each client
    parallel: int

    @property
    def title(self) -> str:
        beginnings = f"{counted(self.prefixes, 'prefix', 'prefixes')} of {self.prefix} tokens"
        clients = f"{self.clients} clients on {self.parallel} sequences"
        return f"{self.lead}: {beginnings} + {self.own} own, {self.new} new; {clients}"

    @property
    def setting(self) -> Setting:
        return Setting(self.parallel, self.prefix + self.own + self.new + 16)

    def job(self, vocabulary: Vocabulary, round_number: int) -> Job:
        seed = (self.name, round_number)
        heads = [vocabulary.prompt(self.prefix, *seed, "head", i) for i in range(self.prefixes)]
        popularity = [1 / (k + 1) for k in range(self.prefixes)]
        chosen = iter(random.Random(repr(seed)).choices(heads, popularity, k=self.clients * self.requests))
        prompts = [
            [next(chosen) + vocabulary.prompt(self.own, *seed, client, i) for i in range(self.requests)]
            for client in range(self.clients)
        ]
        return Job(prompts, self.new)
