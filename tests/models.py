"""The real models that tests run on, kept in the cache outside the tree.

`python -m tests.models` fetches them and prints where they are; `python -m tests.models COMMAND ...` runs a command
with INFERNO_TEST_MODEL and INFERNO_TEST_EMBED_MODEL set.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from inferno.models.catalogue import DEFAULT_MODEL
from inferno.models.pull import pull

_EMBEDDING_FILE = "all-MiniLM-L6-v2.Q8_0.gguf"
_ROOT = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    if own := os.environ.get("INFERNO_CACHE_DIR"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferno"


def generation_model() -> Path:
    """SmolLM2-135M-Instruct, downloaded once."""
    if named := os.environ.get("INFERNO_TEST_MODEL"):
        return Path(named)
    path = cache_dir() / "models" / f"{DEFAULT_MODEL}.gguf"
    return path if path.exists() else pull(DEFAULT_MODEL, path.parent).path


def embedding_model() -> Path | None:
    """all-MiniLM-L6-v2, when it is at hand: named by INFERNO_TEST_EMBED_MODEL, in the cache, or beside the project."""
    if named := os.environ.get("INFERNO_TEST_EMBED_MODEL"):
        return Path(named)
    places = (cache_dir() / "models", _ROOT.parent / "shared" / "models")
    return next((place / _EMBEDDING_FILE for place in places if (place / _EMBEDDING_FILE).exists()), None)


def environment() -> dict[str, str]:
    found = {"INFERNO_TEST_MODEL": generation_model(), "INFERNO_TEST_EMBED_MODEL": embedding_model()}
    return {name: str(path) for name, path in found.items() if path is not None}


if __name__ == "__main__":
    for name, value in environment().items():
        print(f"{name}={value}", file=sys.stderr)
    if command := sys.argv[1:]:
        os.execvpe(command[0], command, {**os.environ, **environment()})
