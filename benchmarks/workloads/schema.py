"""Answers that must follow a JSON schema, and the same chats without."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from benchmarks.client import SAMPLING, Client, Connection, on_connections
from benchmarks.exchange import Exchange, NotSupported, Refused
from benchmarks.measurement import Metrics, summary
from benchmarks.prompts import Vocabulary, words
from benchmarks.workloads.base import Setting, Workload

#: Every part has a bound, so that also a small model comes to an end: about 80 tokens.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 24},
        "kind": {"enum": ["animal", "plant", "place", "thing"]},
        "known": {"type": "boolean"},
        "ratings": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 99},
            "minItems": 8,
            "maxItems": 8,
        },
        "colours": {
            "type": "array",
            "items": {"enum": ["red", "green", "blue", "white"]},
            "minItems": 6,
            "maxItems": 6,
        },
    },
    "required": ["name", "kind", "known", "ratings", "colours"],
    "additionalProperties": False,
}
_MOST_TOKENS = 192


@dataclass(frozen=True, kw_only=True)
class JsonAnswers(Workload):
    clients: int
    requests: int  # of each client
    constrained: bool
    free_tokens: int = 80  # of an answer without a schema

    @property
    def title(self) -> str:
        how = "by a JSON schema" if self.constrained else "without a schema"
        return f"{self.clients} clients, chats answered {how}"

    @property
    def setting(self) -> Setting:
        return Setting(self.clients, 512)

    def body(self, seed: tuple[int, ...]) -> dict[str, Any]:
        text = f"Describe this as a JSON object with name, kind, known, ratings and colours: {words(24, seed)}."
        body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], **SAMPLING}
        if not self.constrained:
            return {**body, "max_tokens": self.free_tokens, "ignore_eos": True}
        wanted = {"type": "json_schema", "json_schema": {"name": "description", "schema": SCHEMA, "strict": True}}
        return {**body, "max_tokens": _MOST_TOKENS, "response_format": wanted}

    async def drive(self, client: Client, vocabulary: Vocabulary, round_number: int) -> list[Exchange]:
        async def ask(connection: Connection, number: int) -> list[Exchange]:
            bodies = [self.body((round_number, number, i)) for i in range(self.requests)]
            return [await connection.stream("/v1/chat/completions", body) for body in bodies]

        try:
            return await on_connections(client, self.clients, ask)
        except Refused as error:
            raise NotSupported(str(error)) from None

    def metrics(self, exchanges: list[Exchange], started: float) -> Metrics:
        metrics = summary(exchanges)
        if self.constrained:
            metrics["valid_share"] = sum(follows_schema(e.text) for e in exchanges) / len(exchanges)
        return metrics


def follows_schema(text: str) -> bool:
    """Whether it is JSON with all the keys, and lists as long as they must be."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if not isinstance(value, dict) or set(value) != set(SCHEMA["required"]):
        return False
    return len(value["ratings"]) == 8 and len(value["colours"]) == 6
