"""The main job on the real model: text over every door."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import numpy as np
import openai
import pytest
import requests
import sseclient
from pydantic import BaseModel, Field

from tests.e2e.conftest import KEY, MODEL, Server

FRANCE = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def sdk(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


def sse(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    url = f"{server.url}/inference/stream"
    with requests.post(url, headers=server.headers, json=body, stream=True, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return [json.loads(event.data) for event in sseclient.SSEClient(response).events()]


@pytest.mark.acceptance("D7", "G3", "I3", "I4")
def test_inference_knows_paris(client: httpx.Client) -> None:
    body = client.post("/inference", json=FRANCE).json()
    assert "Paris" in body["choices"][0]["text"]
    assert body["choices"][0]["finish_reason"] == "length"
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 12, 17)
    assert body["id"].startswith("inf_")


@pytest.mark.acceptance("E2", "E3", "E5")
def test_streamed_pieces_add_up(server: Server, client: httpx.Client) -> None:
    body = {**FRANCE, "max_tokens": 40, "temperature": 0.8, "seed": 11}
    frames = sse(server, body)
    text = "".join(frame["token"] for frame in frames[:-1])
    assert text == client.post("/inference", json=body).json()["choices"][0]["text"]
    assert [frame["index"] for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert frames[-1]["done"] is True
    assert "token" not in frames[-1]


@pytest.mark.acceptance("E5", "I2", "I4")
def test_stop_text_is_left_out(server: Server, client: httpx.Client) -> None:
    whole = client.post("/inference", json=FRANCE).json()["choices"][0]["text"]
    for stop in (["Paris"], "Paris", ["never said", "Paris"]):
        frames = sse(server, {**FRANCE, "stop": stop})
        text = "".join(frame["token"] for frame in frames[:-1])
        assert (text, frames[-1]["finish_reason"]) == (whole.partition("Paris")[0], "stop")
        choice = client.post("/inference", json={**FRANCE, "stop": stop}).json()["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (text, "stop")


@pytest.mark.acceptance("I4")
def test_grammar_is_followed_and_its_end_is_the_end_of_the_text(client: httpx.Client) -> None:
    body = {**FRANCE, "grammar": 'root ::= "yes" | "no"'}
    choice = client.post("/inference", json=body).json()["choices"][0]
    assert choice["text"] in ("yes", "no")
    assert choice["finish_reason"] == "stop"


@pytest.mark.acceptance("E5")
def test_characters_of_many_bytes_come_whole(server: Server) -> None:
    """The model has no token for most of them: it says them byte by byte."""
    text = "\u2603\U0001f525\u00e9\u6f22\u5b57\u0e44\u0e17\u0e22"
    frames = sse(server, {**FRANCE, "max_tokens": 100, "grammar": f'root ::= "{text}"'})
    assert "".join(frame["token"] for frame in frames[:-1]) == text
    assert frames[-1]["finish_reason"] == "stop"
    assert frames[-1]["usage"]["completion_tokens"] > len(text)


@pytest.mark.acceptance("I2")
def test_temperature_0_is_greedy(client: httpx.Client) -> None:
    """Whatever the seed; with a temperature the seed decides."""

    def text(temperature: float, seed: int) -> str:
        body = {**FRANCE, "temperature": temperature, "seed": seed}
        return str(client.post("/inference", json=body).json()["choices"][0]["text"])

    assert text(0, 1)[:6] == text(0, 2)[:6] == " Paris"
    assert text(2, 1) != text(2, 2)


class Address(BaseModel):
    street: str = Field(max_length=30)
    city: str = Field(max_length=30)


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)
    job: Literal["teacher", "doctor", "farmer"]
    address: Address
    nickname: str | None = Field(max_length=20)


ADA: Any = [
    {"role": "user", "content": "Ada is a doctor of 36 who lives in Baker Street, London. Describe her as JSON."}
]


def test_the_openai_package_parses_what_it_asks_for(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.parse(
        model=MODEL, messages=ADA, response_format=Person, temperature=0, max_tokens=400
    )
    person = completion.choices[0].message.parsed
    assert isinstance(person, Person)
    assert completion.choices[0].finish_reason == "stop"


def test_the_openai_package_streams_what_it_asks_for(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=MODEL, messages=ADA, response_format=Person, temperature=0, max_tokens=400
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Person)


def test_a_schema_that_cannot_be_kept_is_refused(sdk: openai.OpenAI) -> None:
    class Tags(BaseModel):
        tags: set[str]

    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.parse(model=MODEL, messages=ADA, response_format=Tags)
    assert caught.value.param == "response_format.json_schema.schema.properties.tags.uniqueItems"


@pytest.mark.parametrize("path", ["/inference", "/v1/completions"])
def test_json_objects(client: httpx.Client, path: str) -> None:
    body = {**FRANCE, "response_format": {"type": "json_object"}, "max_tokens": 200, "temperature": 0.5, "seed": 1}
    choice = client.post(path, json=body).json()["choices"][0]
    assert choice["text"].startswith("{")
    assert choice["finish_reason"] == "length" or isinstance(json.loads(choice["text"]), dict)


def test_concurrent_requests_equal_those_alone(client: httpx.Client) -> None:
    # In each the first tokens are far likelier than the second best.
    prompts = ["The capital of France is", "1, 2, 3, 4, 5,", "A, B, C, D,", "The sun is a"]
    bodies = [{**FRANCE, "prompt": prompt, "max_tokens": 8} for prompt in prompts]

    def text(body: dict[str, Any]) -> str:
        return str(client.post("/inference", json=body).json()["choices"][0]["text"])

    alone = [text(body) for body in bodies]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(text, bodies))
    # Rows are summed in another order in a batch, so a near tie may fall the other way; the beginning does not.
    assert [t[:6] for t in together] == [t[:6] for t in alone]


def test_a_conversation_reuses_what_is_computed(sdk: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "Name a colour. " * 20}]
    first = sdk.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, temperature=0)
    messages.append({"role": "assistant", "content": first.choices[0].message.content})
    messages.append({"role": "user", "content": "Another."})
    second = sdk.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, temperature=0)
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) > first.usage.prompt_tokens // 2


@pytest.mark.acceptance("G3", "O1", "O2")
def test_chat_streams_what_it_answers(sdk: openai.OpenAI) -> None:
    question: Any = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Say hello."}],
        "seed": 3,
        "max_tokens": 20,
    }
    whole = sdk.chat.completions.create(**question).choices[0].message.content
    chunks = list(sdk.chat.completions.create(**question, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None


@pytest.mark.acceptance("O3")
def test_completions_give_choices_in_order(sdk: openai.OpenAI) -> None:
    prompts = ["The capital of France is", "The capital of Italy is"]
    result = sdk.completions.create(model=MODEL, prompt=prompts, n=2, max_tokens=4, temperature=0, echo=True)
    assert [choice.index for choice in result.choices] == [0, 1, 2, 3]
    assert all(choice.text.startswith(prompts[choice.index // 2]) for choice in result.choices)


def test_log_probabilities_are_probabilities(sdk: openai.OpenAI) -> None:
    result = sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=3,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    logprobs = result.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    first = logprobs.content[0]
    assert first.logprob <= 0
    assert [top.logprob for top in first.top_logprobs] == sorted((t.logprob for t in first.top_logprobs), reverse=True)


def test_embeddings_of_a_text_model(sdk: openai.OpenAI) -> None:
    vectors = sdk.embeddings.create(model=MODEL, input=["a cat", "a kitten", "the stock market"]).data
    assert len(vectors) == 3
    assert abs(sum(x * x for x in vectors[0].embedding) - 1) < 1e-4


@pytest.mark.acceptance("I5")
def test_a_prompt_beyond_the_context_is_refused(client: httpx.Client) -> None:
    response = client.post("/inference", json={**FRANCE, "prompt": "word " * 3000})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "CONTEXT_LENGTH_EXCEEDED"
    assert error["details"]["context_size"] == 1024
    assert error["details"]["prompt_tokens"] >= 3000


@pytest.mark.acceptance("B1", "B2")
def test_embeddings_are_the_models_own(client: httpx.Client) -> None:
    def embed(value: Any, **more: Any) -> dict[str, Any]:
        return dict(client.post("/embeddings", json={"model": MODEL, "input": value, **more}).json())

    texts = ["Hello world", "How are you?"]
    body = embed(texts, encoding_format="float")
    assert [item["index"] for item in body["data"]] == [0, 1]
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 4
    vectors = [np.array(item["embedding"]) for item in body["data"]]
    assert {len(vector) for vector in vectors} == {576}
    assert [float(np.linalg.norm(vector)) for vector in vectors] == pytest.approx([1, 1])
    assert abs(vectors[0] @ vectors[1]) < 0.999  # they are not the same one
    swapped = embed(texts[::-1], encoding_format="base64")["data"]
    raw = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in swapped]
    assert raw[1] == pytest.approx(vectors[0], abs=1e-3)
    assert raw[0] == pytest.approx(vectors[1], abs=1e-3)
    (one,) = embed(texts[0])["data"]
    assert one["embedding"] == pytest.approx(list(vectors[0]), abs=1e-3)


@pytest.mark.acceptance("B2")
def test_an_input_beyond_the_context_is_refused(client: httpx.Client) -> None:
    response = client.post("/embeddings", json={"model": MODEL, "input": ["fine", "word " * 3000]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["details"]["field"]) == ("CONTEXT_LENGTH_EXCEEDED", "input[1]")


def test_control_tokens_in_a_message_stay_text(sdk: openai.OpenAI) -> None:
    plain = sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "x" * 14}], max_tokens=1, temperature=0
    )
    crafted = sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "<|im_end|>" * 2}], max_tokens=1, temperature=0
    )
    assert plain.usage is not None
    assert crafted.usage is not None
    # As control tokens they would be two; as text they are many.
    assert crafted.usage.prompt_tokens > plain.usage.prompt_tokens
