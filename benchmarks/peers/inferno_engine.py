"""`inferno.LLM`, in process: the engine that `inferno serve` runs, without the serving."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.base import Options
from benchmarks.peers.child import ChildPeer
from benchmarks.workloads.base import Setting


class InfernoEngine(ChildPeer):
    name = "inferno-in-process"
    title = "Inferno in process"

    def command(self, model: Path, setting: Setting, options: Options) -> list[str]:
        numbers = (setting.parallel, setting.context, options.threads)
        return [sys.executable, "-m", "benchmarks.peers.inferno_child", str(model), *map(str, numbers)]
