"""The workloads, in the order in which they run and are shown: in full, and small enough for a quick look."""

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

_EVERYBODY = (*SERVERS, "llama-server-defaults", *ENGINES, "llama-batched-bench")


def _unique(clients: int, requests: int, new: int) -> UniquePrompts:
    return UniquePrompts(
        name=f"clients-{clients}",
        title=f"{clients} client{'s' if clients > 1 else ''}, unique prompts of 64 tokens, {new} new",
        peers=_EVERYBODY,
        files=GENERATION_FILES,
        clients=clients,
        requests=requests,
        prompt=64,
        new=new,
    )


def _prefill(requests: int) -> UniquePrompts:
    return UniquePrompts(
        name="prefill-512",
        title="Prompts of 512 tokens, one after the other, 1 new",
        peers=(*SERVERS, *ENGINES, "llama-bench"),
        files=GENERATION_FILES,
        headline="input_tok_s",
        clients=1,
        requests=requests,
        prompt=512,
        new=1,
    )


def _json(clients: int, requests: int) -> list[JsonAnswers]:
    def answers(name: str, what: str, constrained: bool) -> JsonAnswers:
        title = f"{clients} clients, chats {what}"
        return JsonAnswers(name=name, title=title, clients=clients, requests=requests, constrained=constrained)

    return [answers("json-free", "without a schema", False), answers("json-schema", "answered by a JSON schema", True)]


FULL: list[Workload] = [
    *(_unique(clients, requests, 64) for clients, requests in ((1, 4), (4, 2), (16, 2), (32, 2), (64, 1))),
    _prefill(8),
    SharedPrefixes(
        name="shared-prefix",
        title="16 clients at once, new shared prefix of 400 tokens + 32 own, 32 new",
        peers=(*SERVERS, "llama-server-defaults", *ENGINES),
        files=GENERATION_FILES,
        prefixes=1,
        prefix=400,
        own=32,
        new=32,
        clients=16,
        requests=1,
        parallel=16,
    ),
    SharedPrefixes(
        name="many-prefixes",
        title="8 system prompts of 300 tokens by Zipf's law + 32 own, 32 new; 8 clients on 4 sequences",
        prefixes=8,
        prefix=300,
        own=32,
        new=32,
        clients=8,
        requests=6,
        parallel=4,
    ),
    Chats(
        name="chats",
        title="32 chats of 3 turns on 8 sequences, 32 words and 32 new a turn",
        chats=32,
        turns=3,
        head=64,
        message=32,
        new=32,
        parallel=8,
    ),
    LiveStreams(
        name="live-streams",
        title="8 live streams while prompts of 4,000 words arrive",
        streams=8,
        new=1024,
        prompts=3,
        prompt=4000,
    ),
    Choices(name="n-8", title="n = 8, prompts of 64 tokens, 64 new", n=8, requests=3, prompt=64, new=64),
    *_json(8, 2),
    SharedPrefixes(
        name="offline",
        title="1,000 prompts with a few-shot head of 200 tokens + 24 own, 16 new; 32 at once",
        prefixes=1,
        prefix=200,
        own=24,
        new=16,
        clients=40,
        requests=25,
        parallel=32,
    ),
    EmbeddingTexts(
        name="embeddings",
        title="Embeddings: 8 clients, 16 texts of 128 tokens a request",
        clients=8,
        requests=3,
        texts=16,
        words=126,
    ),
    ColdStart(
        name="cold-start",
        title="A new process: load to first token, then 16 clients of 64 + 64 tokens",
        clients=16,
        prompt=64,
        new=64,
    ),
]

QUICK: list[Workload] = [
    _unique(1, 2, 32),
    _unique(16, 1, 24),
    _prefill(2),
    SharedPrefixes(
        name="shared-prefix",
        title="16 clients at once, new shared prefix of 128 tokens + 16 own, 16 new",
        peers=(*SERVERS, *ENGINES),
        prefixes=1,
        prefix=128,
        own=16,
        new=16,
        clients=16,
        requests=1,
        parallel=16,
    ),
    SharedPrefixes(
        name="many-prefixes",
        title="8 system prompts of 96 tokens by Zipf's law + 16 own, 16 new; 8 clients on 4 sequences",
        peers=SERVERS,
        prefixes=8,
        prefix=96,
        own=16,
        new=16,
        clients=8,
        requests=2,
        parallel=4,
    ),
    Chats(
        name="chats",
        title="8 chats of 2 turns on 4 sequences, 24 words and 16 new a turn",
        chats=8,
        turns=2,
        head=32,
        message=24,
        new=16,
        parallel=4,
    ),
    LiveStreams(
        name="live-streams",
        title="4 live streams while a prompt of 1,000 words arrives",
        streams=4,
        new=512,
        prompts=1,
        prompt=1000,
    ),
    Choices(name="n-8", title="n = 8, a prompt of 64 tokens, 24 new", n=8, requests=1, prompt=64, new=24),
    *_json(4, 1),
    SharedPrefixes(
        name="offline",
        title="64 prompts with a few-shot head of 100 tokens + 16 own, 8 new; 16 at once",
        peers=(*SERVERS, *ENGINES),
        prefixes=1,
        prefix=100,
        own=16,
        new=8,
        clients=16,
        requests=4,
        parallel=16,
    ),
    EmbeddingTexts(
        name="embeddings",
        title="Embeddings: 4 clients, 8 texts of 128 tokens a request",
        clients=4,
        requests=1,
        texts=8,
        words=126,
    ),
    ColdStart(
        name="cold-start",
        title="A new process: load to first token, then 16 clients of 32 + 16 tokens",
        clients=16,
        prompt=32,
        new=16,
    ),
]
