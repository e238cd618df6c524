"""Threads of an engine in this process."""

import os
from pathlib import Path

from inferno import LLM


def test_loading_leaves_no_compute_threads_behind(tiny_model: Path) -> None:
    """With more of them than processors OpenMP stops spinning, and every operation waits for a thread to wake."""
    before = set(os.listdir("/proc/self/task"))
    with LLM(tiny_model, context_size=64, parallel=1, threads=2) as llm:
        llm.generate("a", max_tokens=4)
        assert len(set(os.listdir("/proc/self/task")) - before) == 2  # the engine's thread, and one that helps it
