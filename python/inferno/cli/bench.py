"""`inferno bench`: how fast a model runs here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from inferno import _core
from inferno.cli import options, output
from inferno.llm import LLM


@click.command()
@click.argument("model")
@click.option("--batch", "batches", default="1,4,8", help="Numbers of texts at once, with commas.")
@click.option("--prompt-tokens", type=click.IntRange(1), default=128, help="Length of each prompt.")
@click.option("--new-tokens", type=click.IntRange(2), default=64, help="Tokens to generate for each.")
@options.models_dir_option
@options.json_option
@options.engine_options
def bench(model: str, batches: str, prompt_tokens: int, new_tokens: int, **given: Any) -> None:
    """Measure prompt processing and generation of MODEL (an id or a GGUF file), in process."""
    as_json, models_dir = given.pop("as_json"), given.pop("models_dir")
    engine = {key.partition(".")[2]: v for key, v in options.engine_flags(given).items() if v is not None}
    sizes = _sizes(batches)
    _core.set_log_level(1)
    defaults = {"parallel": max(sizes), "context_size": prompt_tokens + new_tokens + 1, "prefix_cache": False}
    with LLM(Path(model) if model.endswith(".gguf") else model, models_dir=models_dir, **{**defaults, **engine}) as llm:
        rows = [measure(llm, size, prompt_tokens, new_tokens) for size in sizes]
    if as_json:
        output.print_json(rows)
    else:
        output.print_table(("BATCH", "PROMPT tok/s", "GENERATION tok/s"), [row.values() for row in rows])


def _sizes(text: str) -> list[int]:
    sizes = [int(item) for item in text.split(",") if item.strip().isdigit()]
    if not sizes or min(sizes) < 1 or len(sizes) != len(text.split(",")):
        raise click.BadParameter("must be numbers with commas", param_hint="--batch")
    return sizes


def measure(llm: LLM, batch: int, prompt_tokens: int, new_tokens: int) -> dict[str, float]:
    """Tokens per second of prompts and of generation, for `batch` texts at once."""
    n_vocab = llm.info.n_vocab
    prompts = [
        [(7919 * (i + 1) + 31 * j) % (n_vocab // 2) + n_vocab // 4 for j in range(prompt_tokens)] for i in range(batch)
    ]
    start = time.perf_counter()
    llm.generate(prompts, max_tokens=1)
    prompt_s = time.perf_counter() - start
    start = time.perf_counter()
    llm.generate(prompts, max_tokens=new_tokens, ignore_eos=True)
    total_s = time.perf_counter() - start
    return {
        "batch": batch,
        "prompt_tokens_per_s": round(batch * prompt_tokens / prompt_s, 1),
        "generated_tokens_per_s": round(batch * (new_tokens - 1) / max(total_s - prompt_s, 1e-9), 1),
    }
