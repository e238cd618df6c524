"""O3: POST /v1/completions."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from inferno.request import TextPrompt, TokenPrompt

from tests.fakes import FakeEngine
from tests.server.conftest import PROMPT, sse_data

TEXT = "The capital is Paris."


def complete(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/completions", json={**PROMPT, **fields})


@pytest.mark.acceptance("O3")
def test_answer_has_openais_shape(client: httpx.Client) -> None:
    body = complete(client).json()
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"text": TEXT, "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"]["total_tokens"] == 9


def test_default_is_16_tokens(client: httpx.Client, engine: FakeEngine) -> None:
    complete(client)
    assert engine.next().request.sampling["max_tokens"] == 16


@pytest.mark.acceptance("O3")
@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [TextPrompt("a")]),
        (["a", "b"], [TextPrompt("a"), TextPrompt("b")]),
        ([1, 2, 3], [TokenPrompt([1, 2, 3])]),
        ([[1, 2], [3]], [TokenPrompt([1, 2]), TokenPrompt([3])]),
        (["a", [3]], [TextPrompt("a"), TokenPrompt([3])]),
    ],
)
def test_prompts_in_all_forms(client: httpx.Client, engine: FakeEngine, prompt: Any, expected: list[Any]) -> None:
    assert complete(client, prompt=prompt).status_code == 200
    assert engine.next().request.prompts == expected


@pytest.mark.acceptance("G4")
@pytest.mark.parametrize(
    "prompt", [None, "", [], [""], [[]], [1, "a"], [-1], [2**31], [1.5], [True], [[1], "", "a"], ["a"] * 65, {"a": 1}]
)
def test_bad_prompts(client: httpx.Client, prompt: Any) -> None:
    response = complete(client, prompt=prompt)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("prompt")


@pytest.mark.acceptance("O3")
def test_choices_are_ordered_by_prompt(client: httpx.Client) -> None:
    body = complete(client, prompt=["a", "b"], n=2, echo=True).json()
    assert [choice["text"] for choice in body["choices"]] == ["a" + TEXT, "a" + TEXT, "b" + TEXT, "b" + TEXT]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["prompt_tokens"] == 8


@pytest.mark.acceptance("O3")
def test_stream(client: httpx.Client) -> None:
    data = sse_data(complete(client, stream=True, echo=True, prompt=["a", "b"]).text)
    assert data[-1] == "[DONE]"
    texts = ["", ""]
    for chunk in data[:-1]:
        assert chunk["object"] == "text_completion"
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == ["a" + TEXT, "b" + TEXT]
    ends = [chunk["choices"][0]["finish_reason"] for chunk in data[:-1]]
    assert [end for end in ends if end] == ["stop", "stop"]


@pytest.mark.acceptance("O3")
def test_the_prompt_may_be_all_of_the_answer(client: httpx.Client) -> None:
    fields = {"prompt": ["a", "b"], "echo": True, "max_tokens": 0}
    body = complete(client, **fields).json()
    assert [(choice["text"], choice["finish_reason"]) for choice in body["choices"]] == [
        ("a", "length"),
        ("b", "length"),
    ]
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (8, 0)
    streamed = complete(client, **fields, stream=True, stream_options={"include_usage": True}).text
    *chunks, end, done = sse_data(streamed)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", "b", "", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "length", "length"]
    assert (end["usage"], done) == (body["usage"], "[DONE]")


def test_logprobs(client: httpx.Client) -> None:
    logprobs = complete(client, logprobs=2).json()["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["The", " capital", " is", " Paris", "."]
    assert logprobs["text_offset"] == [0, 3, 11, 14, 20]
    assert logprobs["token_logprobs"][0] == -0.5
    assert logprobs["top_logprobs"][0] == {"The": -0.5, "\ufffd": -2.0}


def test_offsets_go_on_through_a_stream(client: httpx.Client) -> None:
    data = sse_data(complete(client, logprobs=0, stream=True).text)
    pieces = [chunk["choices"][0]["logprobs"] for chunk in data[:-1] if chunk["choices"][0]["logprobs"]]
    assert [offset for piece in pieces for offset in piece["text_offset"]] == [0, 3, 11, 14, 20]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"echo": True, "prompt": [1]}, "echo"),
        ({"echo": 1}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"echo": True, "max_tokens": False}, "max_tokens"),
        ({"echo": True, "max_tokens": -1}, "max_tokens"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"best_of": "1"}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
    ],
)
def test_what_is_not_supported_is_refused(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    response = complete(client, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_harmless_values_pass(client: httpx.Client, engine: FakeEngine) -> None:
    fields = {"suffix": "", "best_of": 2, "n": 2, "user": "me", "repetition_penalty": 1.25}
    assert complete(client, **fields).status_code == 200
    assert engine.next().request.sampling["repeat_penalty"] == 1.25
