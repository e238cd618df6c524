"""The workloads: a row for each, with its size in full and for a quick look."""

from __future__ import annotations

from benchmarks.workloads.base import ENGINES, GENERATION_FILES, SERVERS, Workload
from benchmarks.workloads.chats import Chats
from benchmarks.workloads.choices import Choices
from benchmarks.workloads.clients import UniquePrompts
from benchmarks.workloads.cold_start import ColdStart
from benchmarks.workloads.embeddings import EmbeddingTexts
from benchmarks.workloads.live import LiveStreams
from benchmarks.workloads.prefixes import SharedPrefixes
from benchmarks.workloads.schema import JsonAnswers

#: Clients and the requests of each.
_CLIENTS = {1: 4, 4: 2, 16: 2, 32: 2, 64: 1}
_QUICK_CLIENTS = {1: 2, 16: 1}


def workloads(quick: bool) -> list[Workload]:
    """In the order in which they run and are shown."""

    def size(full: int, small: int) -> int:
        return small if quick else full

    return [
        *(
            UniquePrompts(
                name=f"clients-{clients}",
                peers=(*SERVERS, "llama-server-defaults", *ENGINES, "llama-batched-bench"),
                files=GENERATION_FILES,
                clients=clients,
                requests=requests,
                prompt=64,
                new=size(64, 24),
            )
            for clients, requests in (_QUICK_CLIENTS if quick else _CLIENTS).items()
        ),
        UniquePrompts(
            name="prefill-512",
            peers=(*SERVERS, *ENGINES, "llama-bench"),
            files=GENERATION_FILES,
            headline="input_tok_s",
            clients=1,
            requests=size(8, 2),
            prompt=512,
            new=1,
        ),
        SharedPrefixes(
            name="shared-prefix",
            lead="Cold burst",
            peers=(*SERVERS, "llama-server-defaults", *ENGINES),
            files=GENERATION_FILES,
            prefixes=1,
            prefix=size(400, 128),
            own=size(32, 16),
            new=size(32, 16),
            clients=16,
            requests=1,
            parallel=16,
        ),
        SharedPrefixes(
            name="many-prefixes",
            lead="System prompts of unequal popularity",
            prefixes=8,
            prefix=size(300, 96),
            own=size(32, 16),
            new=size(32, 16),
            clients=8,
            requests=size(6, 2),
            parallel=4,
        ),
        Chats(
            name="chats",
            chats=size(32, 8),
            turns=size(3, 2),
            head=size(64, 32),
            message=size(32, 24),
            new=size(32, 16),
            parallel=size(8, 4),
        ),
        LiveStreams(
            name="live-streams",
            streams=size(8, 4),
            new=size(1024, 512),
            prompts=size(3, 1),
            prompt=size(4000, 1000),
        ),
        Choices(name="n-8", n=8, requests=size(3, 1), prompt=64, new=size(64, 24)),
        *(
            JsonAnswers(name=name, clients=size(8, 4), requests=size(2, 1), constrained=constrained)
            for name, constrained in (("json-free", False), ("json-schema", True))
        ),
        SharedPrefixes(
            name="offline",
            lead=f"{size(1000, 64):,} prompts with a few-shot head",
            prefixes=1,
            prefix=size(200, 100),
            own=size(24, 16),
            new=size(16, 8),
            clients=size(40, 16),
            requests=size(25, 4),
            parallel=size(32, 16),
            most_rounds=2,
        ),
        EmbeddingTexts(name="embeddings", clients=size(8, 4), requests=size(3, 1), texts=size(16, 8), words=126),
        ColdStart(name="cold-start", clients=16, prompt=size(64, 32), new=size(64, 16)),
    ]
