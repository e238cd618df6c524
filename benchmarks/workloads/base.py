"""What a workload is."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from benchmarks.client import Client, closed_loop
from benchmarks.exchange import Exchange, Job
from benchmarks.measurement import Metrics, summary
from benchmarks.prompts import Vocabulary

GENERATION_FILES = ("q4_1", "q4_0", "q8_0")
SERVERS = ("inferno", "llama-server")
#: Those that take a job: prompts as tokens, a number of tokens to generate, nothing else.
ENGINES = ("inferno-in-process", "openvino")


@dataclass(frozen=True)
class Setting:
    """What a peer is started for: sequences at once, and tokens that each of them may hold."""

    parallel: int
    context: int
    embeddings: bool = False


@dataclass(frozen=True, kw_only=True)
class Workload(abc.ABC):
    """A kind of load and its size. Rounds of it differ in their prompts, peers in one round do not."""

    name: str
    peers: tuple[str, ...] = SERVERS
    files: tuple[str, ...] = ("q4_1",)
    headline: str = "output_tok_s"  # the metric by which peers are compared
    fresh: bool = False  # a peer is started anew for each round
    most_rounds: int = 100  # fewer where a round is long

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What the load is, with its sizes, in a line."""

    @property
    @abc.abstractmethod
    def setting(self) -> Setting: ...

    @abc.abstractmethod
    async def drive(self, client: Client, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        """Put one round's load on a server. Raises NotSupported, Failed."""

    def metrics(self, exchanges: list[Exchange], started: float) -> Metrics:
        """`started` is when the peer's process was."""
        return summary(exchanges)


@dataclass(frozen=True, kw_only=True)
class JobWorkload(Workload):
    """A load that is a job, so that engines without HTTP can do it too."""

    peers: tuple[str, ...] = (*SERVERS, *ENGINES)

    @abc.abstractmethod
    def job(self, vocabulary: Vocabulary, round_number: int) -> Job: ...

    async def drive(self, client: Client, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        return await closed_loop(client, self.job(vocabulary, round_number))


def warm_up(setting: Setting, vocabulary: Vocabulary) -> Job:
    """A little work for every slot: the first batches touch memory for the first time."""
    prompts = [[vocabulary.prompt(16, "warm up", i)] for i in range(setting.parallel)]
    return Job(prompts, 4)


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
