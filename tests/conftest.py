"""Fixtures for every test: an event loop for `anyio` tests, and models to run on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # `from tests import ...`, however pytest was started


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama with random weights: loads in no time, says nonsense, the same every time."""
    from tests.gguf_files import write_tiny_llama

    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct."""
    return _model("INFERNO_TEST_MODEL", "*mollm2-135m-instruct*.gguf")


@pytest.fixture(scope="session")
def embed_model() -> Path:
    """all-MiniLM-L6-v2: 384 dimensions."""
    return _model("INFERNO_TEST_EMBED_MODEL", "all-*ini*-l6-v2*.gguf")


def _model(variable: str, pattern: str) -> Path:
    """The file that the environment names, or one in the model cache; the test is skipped when there is none."""
    if named := os.environ.get(variable):
        return Path(named)
    cache = Path(os.environ.get("INFERNO_CACHE") or Path.home() / ".cache" / "inferno") / "models"
    found = sorted(path for path in cache.rglob("*.gguf") if path.match(pattern) or path.match(pattern.lower()))
    if not found:
        pytest.skip(f"no model: set {variable} to a GGUF file, or put {pattern} into {cache}")
    return found[0]
