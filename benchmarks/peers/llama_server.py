"""llama.cpp's own server, built from the same pinned source with the same compiler options."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.base import Options, existing, tuned_environment
from benchmarks.peers.server import HOST, MODEL, ServerPeer
from benchmarks.workloads.base import Setting


class LlamaServerDefaults(ServerPeer):
    """As it comes: four slots in one shared KV cache, as long as the model was trained for."""

    name = "llama-server-defaults"
    title = "llama-server, defaults"

    def prepare(self, options: Options) -> None:
        existing(self._program(options))

    def command(self, model: Path, setting: Setting, options: Options, port: int, directory: Path) -> list[str]:
        command = [str(self._program(options)), "-m", str(model), "--alias", MODEL, "--offline"]
        return [*command, "--host", HOST, "--port", str(port)]

    @staticmethod
    def _program(options: Options) -> Path:
        return options.programs / "llama-server"


class LlamaServer(LlamaServerDefaults):
    """A slot and a KV stream for each sequence, and nothing that costs time beside generating."""

    name = "llama-server"
    title = "llama-server, tuned"

    def command(self, model: Path, setting: Setting, options: Options, port: int, directory: Path) -> list[str]:
        command = super().command(model, setting, options, port, directory)
        command += ["-np", str(setting.parallel), "-c", str(setting.parallel * setting.context), "--no-kv-unified"]
        command += ["-t", str(options.threads), "-tb", str(options.threads), "--log-disable", "--no-ui", "--no-slots"]
        if setting.embeddings:
            command += ["--embeddings", "-b", "2048", "-ub", "2048"]
        return [*command, *options.llama_arguments]

    def environment(self) -> dict[str, str]:
        return tuned_environment()
