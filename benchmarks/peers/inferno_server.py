"""`inferno serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.base import Options
from benchmarks.peers.server import HOST, MODEL, ServerPeer
from benchmarks.workloads.base import Setting


class InfernoServer(ServerPeer):
    """As it comes, with a key, metrics and traces; only rate limits are off, since one client sends everything."""

    name = "inferno"
    title = "Inferno"
    key: str | None = "benchmark-key"
    flags: tuple[str, ...] = ("--no-rate-limits",)
    settings: ClassVar[dict[str, str]] = {}  # in the environment

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python

    def command(self, model: Path, setting: Setting, options: Options, port: int, directory: Path) -> list[str]:
        command = [self._python, "-m", "inferno.cli.main", "serve", "--host", HOST, "--port", str(port)]
        command += ["--data-dir", str(directory), "--alias", f"{MODEL}={model}", "--model", MODEL, *self.flags]
        command += ["--parallel", str(setting.parallel), "--context-size", str(setting.context)]
        return [*command, "--threads", str(options.threads)]

    def environment(self) -> dict[str, str]:
        key = {"INFERNO_API_KEY": self.key} if self.key else {}
        return {**super().environment(), **key, **self.settings, "XDG_CONFIG_HOME": "/nonexistent"}
