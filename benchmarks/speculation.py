"""What guessing tokens from the text gains: one, two and eight texts at once, with `draft_tokens` as it comes and with
0, in alternating rounds, each in a process of its own.

    python -m benchmarks.speculation [--model FILE] [--draft-model FILE] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.plan import alternating
from tests.models import generation_model

NEW, CLIENTS = 160, (1, 2, 8)
NOTES = (
    "The engine batches all requests. Each model runs in a worker process that is started again when it dies. "
    "Prefixes are shared: a request that begins like another one waits for it. Keys have limits per minute and day. "
    "Webhooks are signed with a secret, and are sent again when nobody answers. "
)
TASKS = {
    "copy": f"Copy this text.\n\n{NOTES}\n\nCopy:\n{NOTES[:40]}",
    "code": "class Point:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n\n    def get_x(self):",
    "story": "Once upon a time a dog and a cat lived in a garden behind an old house.",
}
SAMPLING = {"max_tokens": NEW, "ignore_eos": True, "repeat_penalty": 1.0, "temperature": 0.7, "seed": 7}


def child(model: Path, draft_tokens: int, draft_model: Path | None) -> None:
    """Prints, by task and number of texts: tokens per second, tokens drafted and accepted, and the texts."""
    from inferno import LLM

    results = {}
    options: dict[str, Any] = {"draft_model": draft_model} if draft_model and draft_tokens else {}
    with LLM(model, parallel=max(CLIENTS), context_size=512, draft_tokens=draft_tokens, **options) as llm:
        llm.generate(list(TASKS.values()), **SAMPLING)
        for task, prompt in TASKS.items():
            for clients in CLIENTS:
                prompts = [f"{'-' * i}\n{prompt}" for i in range(clients)]
                before, began = llm.stats(), time.perf_counter()
                texts = [result.text for result in llm.generate(prompts, **SAMPLING)]
                seconds, after = time.perf_counter() - began, llm.stats()
                results[f"{task} {clients}"] = {
                    "tok_s": clients * NEW / seconds,
                    "drafted": after.drafted_tokens_total - before.drafted_tokens_total,
                    "accepted": after.accepted_tokens_total - before.accepted_tokens_total,
                    "texts": texts,
                }
    print(json.dumps(results))


def measured(model: Path, draft_tokens: int, draft_model: Path | None) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.speculation", "--model", str(model), "--child", str(draft_tokens)]
    command += ["--draft-model", str(draft_model)] if draft_model else []
    environment = {**os.environ, "GOMP_SPINCOUNT": "1000"}  # as a server's workers have it
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    results: dict[str, dict[str, float]] = json.loads(done.stdout)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--draft-model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draft-tokens", type=int, default=8)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = arguments.model or generation_model()
    if arguments.child is not None:
        return child(model, arguments.child, arguments.draft_model)
    rounds = []
    for number in range(arguments.rounds):
        order = alternating([0, arguments.draft_tokens], number)
        results = {draft_tokens: measured(model, draft_tokens, arguments.draft_model) for draft_tokens in order}
        rounds.append((results[0], results[arguments.draft_tokens]))
    for name in rounds[0][0]:
        plain = statistics.median(off[name]["tok_s"] for off, _ in rounds)
        ratio = statistics.median(on[name]["tok_s"] / off[name]["tok_s"] for off, on in rounds)
        drafted, accepted = (statistics.median(on[name][key] for _, on in rounds) for key in ("drafted", "accepted"))
        same = all(on[name]["texts"] == off[name]["texts"] for off, on in rounds)
        print(
            f"{name:8} {plain:7.1f} tokens/s without, ratio {ratio:.2f}, drafted {drafted:.0f}, "
            f"accepted {accepted:.0f}, {'the same texts' if same else 'DIFFERENT TEXTS'}"
        )


if __name__ == "__main__":
    main()
