"""The device that the tests run on: the first of this build, or the one that INFERNO_TEST_DEVICE names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from inferno import LLM, _core
from inferno.request import Choice

if TYPE_CHECKING:
    from inferno._core import DeviceRow

PROMPT = "The capital of France is"
#: Of SmolLM2-135M, with the output.
ALL_LAYERS = 31


@pytest.fixture(scope="session")
def device() -> DeviceRow:
    if not _core.gpu_backends():
        pytest.skip("this build has no GPU backend; `make test-vulkan` makes one that has")
    named = os.environ.get("INFERNO_TEST_DEVICE")
    found = [row for row in _core.devices() if named in (None, row["name"])]
    if not found:
        pytest.skip(f"there is no device {named or 'at all'} (Mesa's: mesa-vulkan-drivers)")
    return found[0]


@pytest.fixture(scope="session")
def on_cpu(smollm2: Path) -> Choice:
    """What the processor says."""
    return said(smollm2, device="cpu")


def opened(path: Path, **options: Any) -> LLM:
    return LLM(path, **{"context_size": 256, "parallel": 2, "threads": 2, **options})


def said(path: Path, **options: Any) -> Choice:
    with opened(path, **options) as llm:
        return first_tokens(llm)


def first_tokens(llm: LLM) -> Choice:
    return llm.generate(PROMPT, max_tokens=4, temperature=0, logprobs=5).choices[0]
