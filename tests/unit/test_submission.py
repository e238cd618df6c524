from typing import Any

import msgspec
import pytest
from fake_core import INFO, FakeCore
from inferno import _core, errors
from inferno.engine.submission import Submitter
from inferno.request import (
    ChatPrompt,
    EmbeddingRequest,
    Message,
    ModelInfo,
    Prompt,
    Request,
    TextPrompt,
    TokenPrompt,
)


def make(**info: object) -> tuple[Submitter, FakeCore]:
    core = FakeCore(runs_by_itself=False, **info)
    return Submitter(core, msgspec.convert({**INFO, **info}, ModelInfo)), core  # type: ignore[arg-type]


def request(*prompts: Prompt, **fields: object) -> Request:
    return msgspec.structs.replace(Request(model="m", prompts=list(prompts)), **fields)


def refusal(request: Request | EmbeddingRequest, **info: object) -> errors.InvalidRequest:
    submitter, core = make(**info)
    submit: Any = submitter.submit if isinstance(request, Request) else submitter.submit_embeddings
    with pytest.raises(errors.InvalidRequest) as caught:
        submit(request)
    assert core.open_ids == []
    return caught.value


def test_prompts_and_choices_become_sequences_in_order() -> None:
    submitter, core = make()
    prompts = TextPrompt("aaa"), TokenPrompt([98])
    ids, prompt_tokens = submitter.submit(request(*prompts, n=2, priority=3, timeout_s=9.0, cache_salt=4))
    assert (ids, prompt_tokens) == ([1, 2, 3, 4], 4)
    assert [core._open[i].prompt for i in ids] == ["aaa", "aaa", "b", "b"]
    assert core.submitted == [{"sampling": [{}] * 4, "priority": 3, "timeout_s": 9.0, "cache_salt": 4}]


def test_each_choice_has_its_own_seed() -> None:
    submitter, core = make()
    submitter.submit(request(TextPrompt("a"), TextPrompt("b"), n=3, sampling={"seed": 10, "top_k": 1}))
    assert [s["seed"] for s in core.submitted[0]["sampling"]] == [10, 11, 12, 10, 11, 12]
    assert all(s["top_k"] == 1 for s in core.submitted[0]["sampling"])


def test_after_the_last_seed_comes_the_first() -> None:
    submitter, core = make()
    submitter.submit(request(TextPrompt("a"), n=3, sampling=_core.validate_sampling({"seed": 2**53 - 2})))
    seeds = [_core.validate_sampling({"seed": s["seed"]})["seed"] for s in core.submitted[0]["sampling"]]
    assert seeds == [2**53 - 2, 2**53 - 1, -(2**53 - 1)]


@pytest.mark.parametrize(
    ("given", "sent"), [(None, ["<end>"]), ("x", ["x", "<end>"]), (["x", "y"], ["x", "y", "<end>"])]
)
def test_a_chat_stops_where_its_template_says(given: object, sent: list[str]) -> None:
    submitter, core = make()
    sampling = {} if given is None else {"stop": given}
    submitter.submit(request(ChatPrompt([Message("user", "hi")]), sampling=sampling))
    assert core.submitted[0]["sampling"] == [{"stop": sent}]
    assert sampling == ({} if given is None else {"stop": given})


def test_a_prompt_may_fill_the_context_but_for_one_token() -> None:
    submitter, _ = make()
    assert submitter.submit(request(TextPrompt("x" * 63))) == ([1], 63)


@pytest.mark.acceptance("I5")
@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (TextPrompt("x" * 64), "prompt"),
        (TokenPrompt([1] * 64), "prompt"),
        (ChatPrompt([Message("user", "x" * 64)]), "messages"),
    ],
)
def test_a_prompt_that_fills_the_context_is_refused(prompt: Prompt, field: str) -> None:
    error = refusal(request(TextPrompt("fine"), prompt))
    assert isinstance(error, errors.ContextLengthExceeded)
    assert error.message == "The prompt has 64 tokens but the context holds 64."
    assert error.details == {"field": field, "prompt_tokens": 64, "context_size": 64}


@pytest.mark.acceptance("I5")
@pytest.mark.parametrize(
    ("prompt", "max_token_bytes", "most"),
    [
        (TextPrompt("é" * 65), 2, 128),
        (TextPrompt("x" * 8193), 128, 8192),
        (TextPrompt("x" * 16385), 0, 16384),  # spaces may become no token
        (ChatPrompt([Message("user", "x" * 16381)]), 2, 16384),  # a template may drop thoughts
        (ChatPrompt([Message("user", "x" * 32765)]), 512, 32768),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_tokenised(prompt: Prompt, max_token_bytes: int, most: int) -> None:
    core = FakeCore()
    core.max_token_bytes = max_token_bytes
    core.tokenize = core.render_chat = None  # type: ignore[method-assign, assignment]
    with pytest.raises(errors.ContextLengthExceeded) as caught:
        Submitter(core, msgspec.convert(INFO, ModelInfo)).submit(request(prompt))  # type: ignore[arg-type]
    size = 130 if most == 128 else most + 1
    assert caught.value.message == f"The prompt has {size} bytes but the context holds 64 tokens."
    assert caught.value.details == {
        "field": "messages" if isinstance(prompt, ChatPrompt) else "prompt",
        "prompt_tokens": 65,
        "context_size": 64,
    }


def test_what_may_fit_is_tokenised() -> None:
    assert refusal(request(TextPrompt("x" * 128))).message == "The prompt has 128 tokens but the context holds 64."
    chat = ChatPrompt([Message("user", "x" * 16380)])
    assert refusal(request(chat)).message == "The prompt has 16380 tokens but the context holds 64."


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (request(), "prompt"),
        (request(*[TextPrompt("a")] * 65), "prompt"),
        (request(TextPrompt("")), "prompt"),
        (request(TokenPrompt([])), "prompt"),
        (request(TokenPrompt([0, 256])), "prompt"),
        (request(TokenPrompt([-1])), "prompt"),
        (request(TextPrompt("\ud800")), "prompt"),
        (request(ChatPrompt([])), "messages"),
        (request(ChatPrompt([Message("user", "")] * 2049)), "messages"),
        (request(ChatPrompt([Message("user", "\ud800")])), "messages"),
        (request(TextPrompt("a"), n=0), "n"),
        (request(TextPrompt("a"), n=9), "n"),
        (request(TextPrompt("a"), timeout_s=0.0), "timeout"),
        (request(TextPrompt("a"), timeout_s=float("nan")), "timeout"),
        (request(TextPrompt("a"), timeout_s=1e9), "timeout"),
        (EmbeddingRequest(model="m", inputs=[]), "input"),
        (EmbeddingRequest(model="m", inputs=[TextPrompt("a")] * 2049), "input"),
        (EmbeddingRequest(model="m", inputs=[TextPrompt("a"), TextPrompt("")]), "input[1]"),
        (EmbeddingRequest(model="m", inputs=[TokenPrompt([300])]), "input[0]"),
        (EmbeddingRequest(model="m", inputs=[TextPrompt("a")], timeout_s=-1.0), "timeout"),
    ],
)
def test_bad_requests_name_the_field(bad: Request | EmbeddingRequest, field: str) -> None:
    assert refusal(bad).field == field


@pytest.mark.acceptance("B2")
def test_a_model_is_asked_only_for_what_it_can_do() -> None:
    assert refusal(request(TextPrompt("a")), can_generate=False).field == "model"
    assert refusal(EmbeddingRequest(model="m", inputs=[TextPrompt("a")]), can_embed=False).field == "model"


def test_embedding_inputs_may_fill_the_context() -> None:
    submitter, _ = make()
    assert submitter.submit_embeddings(EmbeddingRequest(model="m", inputs=[TextPrompt("x" * 64)])) == ([1], 64)


@pytest.mark.acceptance("B2")
def test_an_embedding_input_that_is_too_long_is_named_by_its_place_in_the_whole_list() -> None:
    submitter, _ = make()
    inputs: list[TextPrompt | TokenPrompt] = [TextPrompt("a"), TextPrompt("x" * 65)]
    with pytest.raises(errors.ContextLengthExceeded) as caught:
        submitter.submit_embeddings(EmbeddingRequest(model="m", inputs=inputs), first=128)
    assert caught.value.details == {"field": "input[129]", "prompt_tokens": 65, "context_size": 64}
    assert caught.value.message == "The input has 65 tokens but the context holds 64."
