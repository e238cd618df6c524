"""The engine in process against llama.cpp's own llama-batched-bench, in one run, by ratio.

Both compute the same work on the same file: B prompts of P different tokens, then T tokens for each.
llama-batched-bench neither samples nor detokenizes; the engine does both. The two alternate, each in a process of its
own, and the table gives medians, so that a drift of the machine's speed meets both alike.

    python -m benchmarks.engine --peer build/peers/bin/llama-batched-bench
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.models import generation_model

BATCHES = (1, 4, 8, 16, 32)


def run_peer(
    program: Path, model: Path, batches: list[int], prompt: int, new: int, threads: int
) -> dict[int, dict[str, float]]:
    """Batch size -> prompt and generation tokens per second, of llama-batched-bench."""
    context = max(batches) * (prompt + new) + 256
    command = [str(program), "-m", str(model), "-c", str(context), "-b", "2048", "-ub", "512", "-t", str(threads)]
    command += ["-npp", str(prompt), "-ntg", str(new), "-npl", ",".join(map(str, batches)), "--output-format", "jsonl"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {row["pl"]: {"prompt": row["speed_pp"], "generation": row["speed_tg"]} for row in rows}


def run_engine(model: Path, batches: list[int], prompt: int, new: int, threads: int) -> dict[int, dict[str, float]]:
    """The same of the engine, with its default sampling, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.engine", "--child", str(model), "--threads", str(threads)]
    command += ["--prompt", str(prompt), "--new", str(new), "--batches", ",".join(map(str, batches))]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {int(batch): speeds for batch, speeds in json.loads(output).items()}


def child(model: str, batches: list[int], prompt: int, new: int, threads: int) -> None:
    from inferno import LLM

    results = {}
    for batch in batches:
        options: dict[str, Any] = {"parallel": batch, "context_size": prompt + new + 8, "threads": threads}
        # All prompts fit into one step, so that every text starts generating in the same one.
        options |= {"prefix_cache": False, "step_budget_ms": 60000, "batch_size": max(batch * prompt, 64)}
        with LLM(Path(model), **options) as llm:
            results[batch] = measure(llm, batch, prompt, new)
    print(json.dumps(results))


def measure(llm: Any, batch: int, prompt: int, new: int) -> dict[str, float]:
    """Speeds from the engine's own timings: generation runs from the last first token to the end."""
    n_vocab = llm.info.n_vocab
    prompts = [[(7919 * (i + 1) + 31 * j) % (n_vocab // 2) + n_vocab // 4 for j in range(prompt)] for i in range(batch)]
    llm.generate([[1, 2, 3]], max_tokens=4, ignore_eos=True)  # the first batches touch memory for the first time
    results = llm.generate(prompts, max_tokens=new, ignore_eos=True)
    timings = [result.choices[0].timings for result in results]
    first = max(t.queue_ms + t.prefill_ms for t in timings)
    end = max(t.queue_ms + t.prefill_ms + t.decode_ms for t in timings)
    return {"prompt": batch * prompt / first * 1000, "generation": batch * (new - 1) / (end - first) * 1000}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    model = Path(arguments.model) if arguments.model else generation_model()
    work = (arguments.batches, arguments.prompt, arguments.new, arguments.threads)
    ours, theirs = [], []
    for round_number in range(arguments.rounds):
        pair = [
            lambda: ours.append(run_engine(model, *work)),
            lambda: theirs.append(run_peer(arguments.peer, model, *work)),
        ]
        for measure_one in pair if round_number % 2 == 0 else reversed(pair):
            measure_one()
    return {
        "model": model.name,
        "prompt_tokens": arguments.prompt,
        "new_tokens": arguments.new,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "batches": [row(batch, ours, theirs) for batch in arguments.batches],
    }


def row(
    batch: int, ours: list[dict[int, dict[str, float]]], theirs: list[dict[int, dict[str, float]]]
) -> dict[str, float]:
    result: dict[str, float] = {"batch": batch}
    for kind in ("prompt", "generation"):
        a = [run[batch][kind] for run in ours]
        b = [run[batch][kind] for run in theirs]
        result[f"{kind}_engine"] = round(statistics.median(a), 1)
        result[f"{kind}_batched_bench"] = round(statistics.median(b), 1)
        result[f"{kind}_ratio"] = round(statistics.median(x / y for x, y in zip(a, b, strict=True)), 3)
    return result


def markdown(report: dict[str, Any]) -> str:
    lines = [
        f"{report['model']}, {report['prompt_tokens']} prompt + {report['new_tokens']} new tokens, "
        f"{report['threads']} threads, medians of {report['rounds']} alternating rounds, tokens per second",
        "",
        "| batch | generation: engine | llama-batched-bench | ratio | prompt: engine | llama-batched-bench | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in report["batches"]:
        cells = [r["batch"]]
        for kind in ("generation", "prompt"):
            cells += [r[f"{kind}_engine"], r[f"{kind}_batched_bench"], r[f"{kind}_ratio"]]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, default=Path("build/peers/bin/llama-batched-bench"))
    parser.add_argument("--model", help="a GGUF file; the default model when left out")
    parser.add_argument("--batches", type=lambda text: [int(item) for item in text.split(",")], default=list(BATCHES))
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the report as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.batches, arguments.prompt, arguments.new, arguments.threads)
        return
    report = compare(arguments)
    print(markdown(report))
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
