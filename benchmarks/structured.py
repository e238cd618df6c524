"""What structured output costs: 8 texts at once in process, with a JSON Schema and without, in alternating rounds.

Run: `GOMP_SPINCOUNT=0 python -m tests.models python benchmarks/structured.py`. A ratio of 1 means that the schema costs
nothing; that of processor time is steadier where a machine is shared.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from inferno import LLM

PARALLEL, REQUESTS, ROUNDS = 8, 16, 8
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


def generate(llm: LLM, prompt: str, sampling: list[dict[str, Any]]) -> tuple[float, float, list[int]]:
    """(tokens per second, tokens per second of processor time, length of each text)"""
    began, began_cpu = time.perf_counter(), time.process_time()
    streams = [llm.chat_stream([{"role": "user", "content": prompt}], **fields) for fields in sampling]
    lengths = [stream.result().usage.completion_tokens for stream in streams]
    cpu = time.process_time() - began_cpu
    return sum(lengths) / (time.perf_counter() - began), sum(lengths) / cpu, lengths


def compare(llm: LLM, prompt: str, schema: dict[str, Any]) -> tuple[float, float]:
    """The ratios of one round, by the clock and by processor time. Both sides generate texts of the same lengths."""
    common = {"temperature": 0.7, "max_tokens": 256}
    bound = [{**common, "json_schema": schema, "seed": seed} for seed in range(REQUESTS)]
    speed, cpu_speed, lengths = generate(llm, prompt, bound)
    free = [{**common, "max_tokens": n, "ignore_eos": True, "seed": seed} for seed, n in enumerate(lengths)]
    free_speed, free_cpu_speed, _ = generate(llm, prompt, free)
    print(f"  schema {speed:6.1f}  free {free_speed:6.1f} tokens/s", flush=True)
    return speed / free_speed, cpu_speed / free_cpu_speed


def main() -> None:
    with LLM(os.environ["INFERNO_TEST_MODEL"], parallel=PARALLEL, context_size=1024) as llm:
        for name, (prompt, schema) in SCHEMAS.items():
            ratios = [compare(llm, prompt, schema) for _ in range(ROUNDS)]
            clock, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
            print(f"{name}: median ratio {clock:.3f}, of processor time {cpu:.3f}", flush=True)


if __name__ == "__main__":
    main()
