"""The model files that are measured: the default model as it ships, others made of it, and one for embeddings."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.exchange import Failed
from benchmarks.peers.base import Options, existing
from tests.models import cache_dir, embedding_model, generation_model

SHIPPED = "q4_1"  # what the default model's file is
TITLES = {"q4_1": "Q4_1", "q4_0": "Q4_0", "q8_0": "Q8_0", "minilm": "MiniLM Q8_0"}


def model_file(name: str, options: Options) -> Path:
    """Downloads or makes it when it is not in the cache. Raises Failed."""
    if name == "minilm":
        found = embedding_model()
        if found is None:
            raise Failed("all-MiniLM-L6-v2.Q8_0.gguf is not at hand: put it into the cache's models directory")
        return found
    return generation_model() if name == SHIPPED else requantized(name, options)


def requantized(name: str, options: Options) -> Path:
    """The default model in another format. Made from quantized weights: good for speed, not for quality."""
    source = generation_model()
    path = cache_dir() / "models" / f"{source.stem}.{name.upper()}.gguf"
    if not path.exists():
        part = path.with_suffix(".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [str(existing(options.programs / "llama-quantize")), "--allow-requantize", str(source), str(part)]
        done = subprocess.run([*command, name.upper()], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"llama-quantize: {done.stderr[-500:].strip()}")
        part.rename(path)
    return path
