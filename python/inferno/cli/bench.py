"""`inferno bench`: how fast a model runs here."""

from __future__ import annotations

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
@options.config_option
@options.models_dir_option
@options.json_option
@options.engine_options
def bench(
    model: str,
    batches: str,
    prompt_tokens: int,
    new_tokens: int,
    config_file: Path | None,
    models_dir: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure how fast MODEL runs here.

    MODEL is an id or a GGUF file. Prompt processing and generation are measured apart, in this process. Unless flags
    say otherwise, all texts of a batch run at once and their prompts are computed in one step.
    """
    sizes, flags = _sizes(batches), options.engine_flags(given)
    fitting = _fitting(max(sizes), prompt_tokens, new_tokens)
    flags |= {key: value for key, value in fitting.items() if flags[key] is None}
    if flags["engine.parallel"] < max(sizes):
        raise click.BadParameter("must be at least the largest of --batch", param_hint="--parallel")
    settings = options.settings_for(config_file, models_dir, **flags)
    _core.set_log_level(1)
    with LLM(options.model_file(model, settings), **options.chosen_engine_options(settings)) as llm:
        llm.generate([[1, 2, 3]], max_tokens=4, ignore_eos=True)  # touches memory for the first time
        rows = [measure(llm, size, prompt_tokens, new_tokens) for size in sizes]
    if as_json:
        output.print_json(rows)
    else:
        output.print_table(("BATCH", "PROMPT tok/s", "GENERATION tok/s"), [row.values() for row in rows])


def _fitting(batch: int, prompt_tokens: int, new_tokens: int) -> dict[str, Any]:
    """Engine options with which every text of a batch begins to be generated in the same step."""
    return {
        "engine.parallel": batch,
        "engine.context_size": prompt_tokens + new_tokens + 1,
        "engine.batch_size": min(max(batch * prompt_tokens, 512), 16384),
        "engine.step_budget_ms": 60000,
        "engine.prefix_cache": False,
    }


def _sizes(text: str) -> list[int]:
    sizes = [int(item) for item in text.split(",") if item.strip().isdigit()]
    if not sizes or min(sizes) < 1 or len(sizes) != len(text.split(",")):
        raise click.BadParameter("must be numbers with commas", param_hint="--batch")
    return sizes


def measure(llm: LLM, batch: int, prompt_tokens: int, new_tokens: int) -> dict[str, float]:
    """Tokens per second of prompts and of generation, for `batch` texts at once. Prompts take until the last text's
    first token; what is generated later is the generation."""
    n_vocab = llm.info.n_vocab
    prompts = [
        [(7919 * (i + 1) + 31 * j) % (n_vocab // 2) + n_vocab // 4 for j in range(prompt_tokens)] for i in range(batch)
    ]
    results = llm.generate(prompts, max_tokens=new_tokens, ignore_eos=True)
    timings = [result.choices[0].timings for result in results]
    ends = [(t.queue_ms + t.prefill_ms + t.decode_ms, t.decode_ms) for t in timings]
    first = max(end - decode for end, decode in ends)
    later = sum(max(0.0, end - first) / decode for end, decode in ends) * (new_tokens - 1)
    return {
        "batch": batch,
        "prompt_tokens_per_s": round(batch * prompt_tokens / first * 1000, 1),
        "generated_tokens_per_s": round(later / (max(ends)[0] - first) * 1000, 1),
    }
