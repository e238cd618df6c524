"""The examples that need no server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from inferno.models.catalogue import DEFAULT_MODEL

from tests.examples.conftest import EXAMPLES, Finished, run


def example(name: str, model: Path) -> Finished:
    named = {"INFERNO_MODELS_ALIASES": f"{DEFAULT_MODEL}={model}"}
    return run(sys.executable, EXAMPLES / "inprocess" / f"{name}.py", env=os.environ | named)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("generate", " Paris"),
        ("chat", "\nThe capital of France is Paris"),
        ("embed", "\nNearest: A kitten sleeps on the sofa."),
        ("batch", "The capital of Italy is Rome"),
    ],
)
def test_answers(smollm2: Path, name: str, said: str) -> None:
    assert said in example(name, smollm2).text


def test_stream(smollm2: Path) -> None:
    finished = example("stream", smollm2)
    assert finished.text.strip()
    assert len(finished.pieces) >= 5
