"""What structured output costs: 8 texts at once in process, with a JSON Schema and without, in alternating rounds.

Run: `python -m tests.models python benchmarks/structured.py`. A ratio of 1 means that the schema costs nothing.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Any

from inferno import LLM

PARALLEL, REQUESTS, ROUNDS = 8, 32, 5
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "email": {"type": "string", "format": "email"},
        "profession": {"enum": ["teacher", "engineer", "doctor", "farmer", "artist"]},
        "married": {"type": "boolean"},
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string", "maxLength": 40}, "city": {"type": "string", "maxLength": 30}},
            "required": ["street", "city"],
        },
    },
    "required": ["name", "age", "email", "profession", "married", "address"],
}
ITEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "product": {"type": "string", "maxLength": 30},
        "price": {"type": "number", "minimum": 0, "maximum": 1000},
        "in_stock": {"type": "boolean"},
    },
    "required": ["product", "price", "in_stock"],
}
SCHEMAS = {
    "person record": ("Describe a person as JSON.", PERSON),
    "array of objects": (
        "List products of a shop as JSON.",
        {"type": "array", "items": ITEM, "minItems": 3, "maxItems": 5},
    ),
}


def tokens_per_s(llm: LLM, prompt: str, sampling: list[dict[str, Any]]) -> tuple[float, list[int]]:
    """Speed, and the length of each text."""
    began = time.perf_counter()
    streams = [llm.chat_stream([{"role": "user", "content": prompt}], **fields) for fields in sampling]
    lengths = [stream.result().usage.completion_tokens for stream in streams]
    return sum(lengths) / (time.perf_counter() - began), lengths


def compare(llm: LLM, prompt: str, schema: dict[str, Any]) -> tuple[float, float, float]:
    """(tokens per second with the schema, without, ratio) of one round. Both generate the same numbers of tokens."""
    common = {"temperature": 0.7, "max_tokens": 256}
    with_schema, lengths = tokens_per_s(
        llm, prompt, [{**common, "json_schema": schema, "seed": seed} for seed in range(REQUESTS)]
    )
    free = [{**common, "max_tokens": n, "ignore_eos": True, "seed": seed} for seed, n in enumerate(lengths)]
    without, _ = tokens_per_s(llm, prompt, free)
    return with_schema, without, with_schema / without


def main() -> None:
    with LLM(os.environ["INFERNO_TEST_MODEL"], parallel=PARALLEL, context_size=1024) as llm:
        for name, (prompt, schema) in SCHEMAS.items():
            compare(llm, prompt, schema)
            rounds = [compare(llm, prompt, schema) for _ in range(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)]
            for with_schema, without, ratio in rounds:
                print(f"{name}: schema {with_schema:6.1f}  free {without:6.1f}  ratio {ratio:.3f}", flush=True)
            print(f"{name}: median ratio {statistics.median(ratio for *_, ratio in rounds):.3f}")


if __name__ == "__main__":
    main()
