"""Texts being written while long prompts arrive."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.client import Client, completion
from benchmarks.exchange import Exchange
from benchmarks.measurement import Metrics, latencies, percentile
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import Setting, Workload, counted

_POLL_S = 0.01


@dataclass(frozen=True, kw_only=True)
class LiveStreams(Workload):
    """`streams` texts are written all the time; once all have begun, long prompts come one after the other. Measured
    is the time from the first long prompt to the answer of the last. Its output and ITL are those of the live streams,
    its input and TTFT those of the long prompts."""

    streams: int
    new: int  # tokens of a live stream, which then begins again
    prompts: int
    prompt: int  # words, each a token

    @property
    def title(self) -> str:
        return f"{self.streams} live streams, meanwhile {counted(self.prompts, 'prompt')} of {self.prompt:,} words"

    @property
    def setting(self) -> Setting:
        return Setting(self.streams + 2, max(self.prompt, 64 + self.new) + 64)

    async def drive(self, client: Client, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        live: list[Exchange] = []
        seed = (self.name, round_number)

        async def stream(number: int) -> None:
            async with client.connection() as connection:
                for again in itertools.count():
                    live.append(Exchange(0, kind="live"))
                    body = completion(vocabulary.prompt(64, *seed, number, again), self.new)
                    await connection.stream("/v1/completions", body, live[-1])

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(stream(number)) for number in range(self.streams)]
                while len(live) < self.streams or not all(exchange.times for exchange in live[: self.streams]):
                    await asyncio.sleep(_POLL_S)
                long = await self._long_prompts(client, vocabulary, seed)
                for task in tasks:
                    task.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return live + long

    async def _long_prompts(self, client: Client, vocabulary: Vocabulary, seed: tuple[str, int]) -> list[Exchange]:
        exchanges = []
        async with client.connection() as connection:
            for number in range(self.prompts):
                body = completion(vocabulary.prompt(self.prompt, *seed, "long", number), 8)
                exchanges.append(await connection.stream("/v1/completions", body, Exchange(0, kind="long")))
        return exchanges

    def metrics(self, exchanges: list[Exchange], started: float) -> Metrics:
        long = [e for e in exchanges if e.kind == "long"]
        live = [e for e in exchanges if e.kind == "live"]
        begin, end = long[0].begun, long[-1].ended
        pieces = sum(begin < at <= end for e in live for times in e.times for at in times)
        gaps = [gap for e in live for gap in _gaps_within(e, begin, end)]
        ranks = {"itl_p50_ms": 50, "itl_p99_ms": 99, "itl_max_ms": 100}
        return latencies(long) | {
            "requests": len(exchanges),
            "wall_s": end - begin,
            "prompt_tokens": sum(e.prompt_tokens for e in long),
            "new_tokens": pieces,  # pieces of text: a stream that is cut off tells no usage
            "input_tok_s": sum(e.prompt_tokens for e in long) / (end - begin),
            "output_tok_s": pieces / (end - begin),
            **{name: percentile(gaps, rank) * 1000 for name, rank in ranks.items()},
        }


def _gaps_within(exchange: Exchange, begin: float, end: float) -> Iterator[float]:
    """Gaps that end between `begin` and `end`; a stream that is still waiting then has waited at least until `end`."""
    for times in exchange.times:
        seen = [at for at in times if at <= end]
        if not exchange.ended or exchange.ended > end:
            seen.append(end)
        yield from (after - before for before, after in itertools.pairwise(seen) if after > begin)
