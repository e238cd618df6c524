"""The machine that is measured on, and what it can do at most."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.peers.base import ROOT, Options, existing


def description(options: Options) -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30), 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "llama_cpp": _pin(),
    }


def limits(options: Options) -> dict[str, Any]:
    """Read bandwidth in GB/s and int8 multiply-adds in 10^12 operations per second, by number of threads. Raises Failed
    when the program has not been built."""
    program = existing(options.programs / "machine_limits")
    done = subprocess.run([str(program), str(options.threads)], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _pin() -> str:
    """The source package that llama.cpp is built from, with its version."""
    lines = (ROOT / "third_party/llama.cpp/requirements.txt").read_text().splitlines()
    return next(line.split()[0] for line in lines if "==" in line)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """With a plus sign when files differ from it; empty outside a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip()
