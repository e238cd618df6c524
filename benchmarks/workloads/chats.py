"""Chats of several turns, more of them than sequences at once."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.client import Client, Connection, completion, on_connections
from benchmarks.exchange import Exchange
from benchmarks.prompts import Vocabulary, words
from benchmarks.workloads.base import Setting, Workload


@dataclass(frozen=True, kw_only=True)
class Chats(Workload):
    """Each turn's prompt is the whole chat so far, the answers as they came included."""

    chats: int
    turns: int
    head: int  # words
    message: int  # words
    new: int
    parallel: int

    @property
    def title(self) -> str:
        turn = f"{self.message} words + {self.new} new a turn"
        return f"{self.chats} chats of {self.turns} turns on {self.parallel} sequences, {turn}"

    @property
    def setting(self) -> Setting:
        tokens = self.head + self.turns * (self.message + self.new + 16)
        return Setting(self.parallel, tokens * 3 // 2)  # an answer, read again as text, may be more tokens

    async def drive(self, client: Client, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        async def chat(connection: Connection, number: int) -> list[Exchange]:
            exchanges, text = [], words(self.head, (self.name, round_number, number))
            for turn in range(self.turns):
                message = words(self.message, (self.name, round_number, number, turn))
                text += f"\nUser: {message}\nAssistant:"
                exchanges.append(await connection.stream("/v1/completions", completion(text, self.new)))
                text += exchanges[-1].text
            return exchanges

        return await on_connections(client, self.chats, chat)
