"""Guessed tokens change when a text is there, not what it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inferno import LLM, errors

NUMBERS = "Copy: apples, pears, plums, cherries, grapes. Again: apples, pears, plums, cherries, grapes. Again: apples,"
PROMPTS = [NUMBERS, "Once upon a time", "One two three four. One two three four. One two three"]
SAMPLINGS: list[dict[str, Any]] = [
    {"temperature": 0, "repeat_penalty": 1},
    {"temperature": 0.7, "seed": 3, "logprobs": 2},
    {"temperature": 0.9, "seed": 4, "min_p": 0.1, "stop": [". Again: apples, pears, plums, cherries, grapes. A"]},
    {"temperature": 0.5, "seed": 5, "grammar": 'root ::= ("one " | "two " | "apples, ")+'},
]


def texts(llm: LLM, sampling: dict[str, Any]) -> list[Any]:
    """Of one prompt alone, then of all at once, with their log-probabilities."""
    results = [llm.generate(PROMPTS[0], max_tokens=40, **sampling), *llm.generate(PROMPTS, max_tokens=40, **sampling)]
    (choices,) = zip(*(result.choices for result in results), strict=True)
    return [(choice.text, choice.finish_reason, choice.stop_match, choice.logprobs) for choice in choices]


@pytest.fixture(scope="module")
def plain_and_guessing(smollm2: Path) -> Iterator[tuple[LLM, LLM]]:
    with (
        LLM(smollm2, context_size=256, parallel=3, draft_tokens=0) as plain,
        LLM(smollm2, context_size=256, parallel=3, draft_tokens=8) as guessing,
    ):
        yield plain, guessing


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "logprobs", "stop", "grammar"])
def test_texts_are_the_same_with_and_without(plain_and_guessing: tuple[LLM, LLM], sampling: dict[str, Any]) -> None:
    plain, guessing = plain_and_guessing
    assert texts(guessing, sampling) == texts(plain, sampling)


def test_what_is_copied_is_guessed(plain_and_guessing: tuple[LLM, LLM]) -> None:
    plain, guessing = plain_and_guessing
    texts(guessing, SAMPLINGS[0])
    assert plain.stats().drafted_tokens_total == 0
    # The cheapest way to the end of a list that is being copied, and tried at times in any case.
    assert 0 < guessing.stats().accepted_tokens_total <= guessing.stats().drafted_tokens_total


def test_a_draft_model_changes_no_text(plain_and_guessing: tuple[LLM, LLM], smollm2: Path) -> None:
    plain, _ = plain_and_guessing
    with LLM(smollm2, context_size=256, parallel=3, draft_model=smollm2) as drafted:
        for sampling in SAMPLINGS[:2]:
            assert texts(drafted, sampling) == texts(plain, sampling)
        assert drafted.stats().accepted_tokens_total > 0
        assert drafted.stats().memory_bytes - plain.stats().memory_bytes > smollm2.stat().st_size  # its weights, too


def test_a_model_that_cannot_guess_for_another_is_refused(smollm2: Path, tiny_model: Path, tmp_path: Path) -> None:
    for draft, why in (
        (tiny_model, "vocabulary"),
        (tmp_path / "missing.gguf", "not a valid GGUF"),
        ("x" * 5000, "4096 bytes"),
    ):
        with pytest.raises(errors.InvalidRequest, match=why) as caught:
            LLM(smollm2, context_size=256, draft_model=str(draft))
        assert caught.value.field == "draft_model"


def test_a_draft_model_that_would_never_be_asked_is_refused(smollm2: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="never be asked") as caught:
        LLM(smollm2, context_size=256, draft_model=str(smollm2), draft_tokens=0)
    assert caught.value.field == "draft_model"
