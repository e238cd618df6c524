"""Our CPU kernels against llama.cpp's, through whole models."""

from pathlib import Path

import numpy as np
import pytest
from inferno import LLM
from inferno.request import Choice

PROMPT = "The capital of France is"


def first_tokens(path: Path, *, cpu_kernels: bool) -> Choice:
    with LLM(path, context_size=512, parallel=2, cpu_kernels=cpu_kernels) as llm:
        return llm.generate(PROMPT, max_tokens=6, temperature=0, logprobs=5).choices[0]


def test_they_say_what_llama_cpp_says(smollm2: Path) -> None:
    """Additions come in another order, and ours rounds less: probabilities move, slightly."""
    ours, theirs = (first_tokens(smollm2, cpu_kernels=on) for on in (True, False))
    assert ours.logprobs
    assert theirs.logprobs
    assert ours.text.startswith(" Paris")
    assert theirs.text.startswith(" Paris")
    likely = [{top.token: top.logprob for top in choice.logprobs[0].top} for choice in (ours, theirs)]
    both = likely[0].keys() & likely[1].keys()
    assert len(both) >= 4  # the last of the five may be another
    np.testing.assert_allclose([likely[0][t] for t in both], [likely[1][t] for t in both], atol=0.15)


def test_vectors_agree(embed_model: Path) -> None:
    texts = ["a cat", "a kitten sleeps", "GPUs are fast " * 30]
    vectors = []
    for on in (True, False):
        with LLM(embed_model, cpu_kernels=on) as llm:
            vectors.append(llm.embed(texts))
    assert np.all(np.sum(vectors[0] * vectors[1], axis=1) > 0.999)


@pytest.mark.parametrize("cpu_kernels", [True, False])
def test_a_model_keeps_its_kernels_whatever_another_has(smollm2: Path, tiny_model: Path, cpu_kernels: bool) -> None:
    """Theirs round otherwise: logprobs would move."""
    with LLM(smollm2, context_size=128, parallel=1, prefix_cache=False, cpu_kernels=cpu_kernels) as llm:
        before = llm.generate(PROMPT, max_tokens=4, temperature=0, logprobs=5).choices[0].logprobs
        with LLM(tiny_model, context_size=64, cpu_kernels=not cpu_kernels):
            beside = llm.generate(PROMPT, max_tokens=4, temperature=0, logprobs=5).choices[0].logprobs
    assert beside == before
