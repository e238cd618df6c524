"""Prefixes that are shared are taken over, and change nothing about the text."""

from pathlib import Path

import pytest
from inferno import LLM

from tests.gguf_files import write_tiny_llama

HEAD = ", ".join(map(str, range(1, 40))) + ", "
GREEDY = {"temperature": 0, "max_tokens": 12, "repeat_penalty": 1, "ignore_eos": True}


@pytest.fixture(scope="module")
def windowed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "windowed.gguf", window=16)


def open_llm(path: Path, *, prefix_cache: bool) -> LLM:
    return LLM(path, context_size=512, parallel=4, prefix_cache=prefix_cache)


@pytest.mark.parametrize("model", ["tiny_model", "windowed_model", "smollm2"])
def test_texts_are_the_same_with_and_without(model: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(model)
    prompts = [HEAD + f"{40 + i}, " * (1 + 3 * (i % 3)) for i in range(7)]
    prompts += [HEAD[:90], prompts[0] + "41, "]
    texts = []
    for prefix_cache in (True, False):
        with open_llm(path, prefix_cache=prefix_cache) as llm:
            first = llm.generate(prompts[:1], **GREEDY)
            results = first + llm.generate(prompts[1:], **GREEDY)
        texts.append([result.text for result in results])
        shared = [result.usage.cached_tokens for result in results[1:]]
        assert all(shared) if prefix_cache else not any(shared)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("model", ["tiny_model", "windowed_model", "smollm2"])
def test_prefixes_that_lost_their_slot_come_back_unchanged(model: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(model)
    other = "Something else altogether. " * 8
    texts = []
    for store_mb in (1 << 8, 0):
        with LLM(path, context_size=512, parallel=1, prefix_store_mb=store_mb) as llm:
            results = [llm.generate(prompt, **GREEDY) for prompt in (HEAD + "40, 41, ", other, HEAD + "40, ")]
            stats = llm.stats()
        texts.append([result.text for result in results])
        taken = results[-1].usage.cached_tokens
        assert taken == stats.fetched_tokens_total
        assert (taken >= 64) == (stats.stored_bytes > 0) == bool(store_mb)
    assert texts[0] == texts[1]
