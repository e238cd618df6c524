"""Threads of an engine in this process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from inferno import LLM


def test_loading_leaves_no_compute_threads_behind(tiny_model: Path) -> None:
    """With more of them than processors OpenMP stops spinning, and every operation waits for a thread to wake."""
    before = set(os.listdir("/proc/self/task"))
    with LLM(tiny_model, context_size=64, parallel=1, threads=2) as llm:
        llm.generate("a", max_tokens=4)
        assert len(set(os.listdir("/proc/self/task")) - before) == 2  # the engine's thread, and one that helps it


def _spins(environ: dict[str, str]) -> tuple[list[str], str]:
    """How long libgomp says that threads spin in a program that imports `LLM`, and what the environment is then."""
    script = 'import os; from inferno import LLM; print(os.environ.get("GOMP_SPINCOUNT"))'
    environ = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | environ
    done = subprocess.run(
        [sys.executable, "-c", script], env={**environ, "OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True
    )
    return re.findall(r"GOMP_SPINCOUNT = '(.*)'", done.stderr), done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="other compilers bring other OpenMP libraries")
def test_threads_of_a_program_that_imports_llm_sleep_soon() -> None:
    assert _spins({}) == (["1000"], "None")
    assert _spins({"GOMP_SPINCOUNT": "7"}) == (["7"], "7")
