"""O1, O2: POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from inferno.request import ChatPrompt

from tests.fakes import FakeEngine
from tests.server.conftest import CHAT, MODEL, sse_data

PATH = "/v1/chat/completions"


def chat(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(PATH, json={**CHAT, **fields})


def messages(engine: FakeEngine) -> list[tuple[str, str]]:
    prompt = engine.next().request.prompts[0]
    assert isinstance(prompt, ChatPrompt)
    return [(message.role, message.content) for message in prompt.messages]


@pytest.mark.acceptance("O1")
def test_answer_has_openais_shape(client: httpx.Client) -> None:
    body = chat(client).json()
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", MODEL)
    message = {"role": "assistant", "content": "The capital is Paris.", "refusal": None}
    assert body["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"]["total_tokens"] == 9
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}


def test_defaults_leave_the_distribution_alone(client: httpx.Client, engine: FakeEngine) -> None:
    chat(client, temperature=None)
    sampling = engine.next().request.sampling
    assert sampling == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 40,
        "min_p": pytest.approx(0.05),
        "repeat_penalty": 1.0,
        "max_tokens": 2_000_000,
    }


@pytest.mark.acceptance("O2")
def test_max_completion_tokens_wins(client: httpx.Client, engine: FakeEngine) -> None:
    chat(client, max_tokens=5, max_completion_tokens=7)
    assert engine.next().request.sampling["max_tokens"] == 7


@pytest.mark.acceptance("O5")
def test_error_names_the_field_as_it_was_written(client: httpx.Client) -> None:
    error = chat(client, max_completion_tokens=0).json()["error"]
    assert error["param"] == "max_completion_tokens"
    assert error["message"].startswith("max_completion_tokens must be")


@pytest.mark.acceptance("O2")
def test_stream_in_order(client: httpx.Client) -> None:
    data = sse_data(chat(client, stream=True).text)
    assert data[-1] == "[DONE]"
    chunks = data[:-1]
    assert {(c["id"], c["created"], c["object"]) for c in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], "chat.completion.chunk")
    }
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta["content"] for delta in deltas[1:-1]) == "The capital is Paris."
    assert deltas[-1] == {}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert not any("usage" in chunk for chunk in chunks)


@pytest.mark.acceptance("O2")
@pytest.mark.parametrize("options", [{}, {"continuous_usage_stats": True}])
def test_usage_comes_last_when_asked_for(client: httpx.Client, options: dict[str, Any]) -> None:
    data = sse_data(chat(client, stream=True, stream_options={"include_usage": True, **options}).text)
    *chunks, last, done = data
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 9
    assert done == "[DONE]"


@pytest.mark.acceptance("O2")
def test_choices_are_told_apart_by_index(client: httpx.Client) -> None:
    data = sse_data(chat(client, stream=True, n=3, stream_options={"include_usage": True}).text)
    choices = [choice for chunk in data[:-1] for choice in chunk["choices"]]
    ends = [choice["index"] for choice in choices if choice["finish_reason"]]
    roles = [choice["index"] for choice in choices if "role" in choice["delta"]]
    assert (sorted(ends), roles) == ([0, 1, 2], [0, 1, 2])
    usage = data[-2]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 15)


@pytest.mark.acceptance("O2")
def test_n_choices(client: httpx.Client) -> None:
    assert [choice["index"] for choice in chat(client, n=2).json()["choices"]] == [0, 1]


@pytest.mark.acceptance("O2")
def test_contents_may_be_parts(client: httpx.Client, engine: FakeEngine) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "input_text", "text": "lo"}]
    history = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "me"},
        {"role": "assistant", "content": None},
    ]
    chat(client, messages=history)
    assert messages(engine) == [("developer", "Be brief."), ("user", "Hello"), ("assistant", "")]


@pytest.mark.acceptance("G4", "O5")
@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([], "messages"),
        ("hello", "messages"),
        (None, "messages"),
        (["hello"], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 1}], "messages[0].content"),
        ([{"role": "user", "content": [1]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls"),
        ([CHAT["messages"][0]] * 2049, "messages"),  # type: ignore[index]
    ],
)
def test_bad_messages_are_named_by_their_path(client: httpx.Client, value: Any, field: str) -> None:
    response = chat(client, messages=value)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (400, field, "invalid_request_error")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "auto"),
        ("tool_choice", {"type": "function"}),
        ("functions", [{}]),
        ("function_call", "auto"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("prediction", {"type": "content"}),
        ("web_search_options", {"a": 1}),
        ("reasoning_effort", "high"),
        ("guided_json", {"a": 1}),
        ("structured_outputs", {"a": 1}),
        ("chat_template", "{{ x }}"),
    ],
)
def test_what_would_change_the_answer_is_refused(client: httpx.Client, field: str, value: Any) -> None:
    error = chat(client, **{field: value}).json()["error"]
    assert error == {
        "code": "INVALID_REQUEST",
        "message": f"{field} is not supported yet.",
        "details": {"field": field},
        "type": "invalid_request_error",
        "param": field,
    }


@pytest.mark.acceptance("G5", "O2")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", []),
        ("tool_choice", "none"),
        ("response_format", {"type": "text"}),
        ("modalities", ["text"]),
        ("parallel_tool_calls", True),
        ("user", "me"),
        ("store", True),
        ("metadata", {"a": "b"}),
        ("service_tier", "auto"),
        ("logit_bias", {"50256": -100}),
        ("grammar", 'root ::= "x"'),
        ("stop", ["a", "b"]),
        ("top_logprobs", None),
        ("stream_options", None),
    ],
)
def test_what_asks_for_nothing_passes(client: httpx.Client, field: str, value: Any) -> None:
    assert chat(client, **{field: value}).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": 1},
        {"top_logprobs": 3},
        {"logprobs": True, "top_logprobs": 21},
        {"n": 0},
        {"n": 9},
        {"n": 1.5},
        {"stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"include_usage": 1}},
        {"stream": True, "stream_options": []},
    ],
)
def test_bad_combinations(client: httpx.Client, fields: dict[str, Any]) -> None:
    assert chat(client, **fields).status_code == 400


def test_logprobs(client: httpx.Client) -> None:
    logprobs = chat(client, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]
    token = logprobs["content"][0]
    assert (token["token"], token["logprob"], token["bytes"]) == ("The", -0.5, [84, 104, 101])
    assert token["top_logprobs"][1]["bytes"] == [255]


def test_logprobs_without_alternatives(client: httpx.Client, engine: FakeEngine) -> None:
    chat(client, logprobs=True)
    assert engine.next().request.sampling["logprobs"] == 0


def test_logprobs_in_a_stream(client: httpx.Client) -> None:
    data = sse_data(chat(client, stream=True, logprobs=True).text)
    texts = [
        entry["token"] for chunk in data[:-1] for entry in (chunk["choices"][0]["logprobs"] or {}).get("content", [])
    ]
    assert "".join(texts) == "The capital is Paris."
