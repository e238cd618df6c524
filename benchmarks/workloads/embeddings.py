"""Vectors of texts."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from benchmarks.client import Client, Connection, Usage, on_connections
from benchmarks.exchange import Exchange
from benchmarks.prompts import Vocabulary, words
from benchmarks.workloads.base import Setting, Workload


class _Answer(msgspec.Struct):
    usage: Usage


_answers = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, kw_only=True)
class EmbeddingTexts(Workload):
    """Vectors travel in base64, as the `openai` package asks for them."""

    files: tuple[str, ...] = ("minilm",)
    headline: str = "input_tok_s"
    clients: int
    requests: int  # of each client
    texts: int  # in each request
    words: int  # in each text

    @property
    def title(self) -> str:
        return f"Embeddings: {self.clients} clients, requests of {self.texts} texts of {self.words} words"

    @property
    def setting(self) -> Setting:
        return Setting(16, 512, embeddings=True)

    async def drive(self, client: Client, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        async def ask(connection: Connection, number: int) -> list[Exchange]:
            exchanges = []
            for request in range(self.requests):
                seeds = [(self.name, round_number, number, request, i) for i in range(self.texts)]
                body = {"input": [words(self.words, seed) for seed in seeds], "encoding_format": "base64"}
                exchange, answer = await connection.post("/v1/embeddings", body)
                exchange.prompt_tokens = _answers.decode(answer).usage.prompt_tokens
                exchanges.append(exchange)
            return exchanges

        return await on_connections(client, self.clients, ask)
