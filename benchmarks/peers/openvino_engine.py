"""OpenVINO GenAI's continuous batching, which reads the same GGUF files. It lives in a virtual environment of its own
in the cache, made when it is first wanted; it is no dependency of this project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.exchange import Failed
from benchmarks.peers.base import Options, last_words
from benchmarks.peers.child import ChildPeer
from benchmarks.workloads.base import Setting
from tests.models import cache_dir

REQUIREMENT = "openvino-genai>=2026.4,<2027"  # reads GGUF files whose tensors are Q4_1


class OpenVino(ChildPeer):
    name = "openvino"
    title = "OpenVINO GenAI"

    def prepare(self, options: Options) -> None:
        stamp = self._environment() / "installed"
        if not stamp.exists() or stamp.read_text() != REQUIREMENT:
            self._install()
            stamp.write_text(REQUIREMENT)
        packages = self._environment().glob("lib/python*/site-packages/openvino_genai-*.dist-info")
        self.title = f"OpenVINO GenAI {next(packages).stem.partition('-')[2]}"

    def command(self, model: Path, setting: Setting, options: Options) -> list[str]:
        program = Path(__file__).with_name("openvino_child.py")
        numbers = (setting.parallel, setting.context, options.threads)
        return [str(self._python()), str(program), str(model), *map(str, numbers)]

    def _install(self) -> None:
        print(f"Installing {REQUIREMENT} into {self._environment()}", file=sys.stderr)
        self._environment().mkdir(parents=True, exist_ok=True)
        log = self._environment() / "install.log"
        with log.open("wb") as output:
            for command in (
                [sys.executable, "-m", "venv", str(self._environment())],
                [str(self._python()), "-m", "pip", "install", "--quiet", REQUIREMENT],
            ):
                if subprocess.run(command, stdout=output, stderr=output).returncode:
                    raise Failed(f"it cannot be installed: {last_words(log)}")

    @staticmethod
    def _environment() -> Path:
        return cache_dir() / "peers" / "openvino"

    def _python(self) -> Path:
        return self._environment() / "bin" / "python"
