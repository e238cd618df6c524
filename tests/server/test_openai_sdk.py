"""O1-O5 with the real `openai` package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from inferno import errors

from tests.fakes import FakeEngine
from tests.server.conftest import KEY, MODEL, Live

TEXT = "The capital is Paris."
MESSAGES: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def sdk(serve: Callable[..., Live], engine: FakeEngine) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{serve(engine).url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.acceptance("O1")
def test_chat(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.choices[0].message.content == TEXT
    assert completion.usage is not None
    assert completion.usage.total_tokens == 9


@pytest.mark.acceptance("O2")
def test_chat_stream(sdk: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == TEXT
    assert chunks[-1].usage is not None


@pytest.mark.acceptance("O3")
def test_completions(sdk: openai.OpenAI) -> None:
    completion = sdk.completions.create(model=MODEL, prompt=["a", "b"], logprobs=1)
    assert [choice.text for choice in completion.choices] == [TEXT, TEXT]
    assert (
        "".join(chunk.choices[0].text for chunk in sdk.completions.create(model=MODEL, prompt="a", stream=True)) == TEXT
    )


@pytest.mark.acceptance("B2", "O4")
def test_embeddings_are_base64_underneath(sdk: openai.OpenAI) -> None:
    response = sdk.embeddings.create(model=MODEL, input=["a", "b"])
    assert len(response.data[1].embedding) == 8


@pytest.mark.acceptance("O4")
def test_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == [MODEL, "org/name"]
    assert sdk.models.retrieve("org/name").owned_by == "local"


@pytest.mark.acceptance("O5")
@pytest.mark.parametrize(
    ("refusal", "raised"),
    [
        (errors.ContextLengthExceeded("long", field="messages"), openai.BadRequestError),
        (errors.AuthorizationFailed("no"), openai.PermissionDeniedError),
        (errors.ModelNotFound("none"), openai.NotFoundError),
        (errors.RateLimitExceeded("slow down", retry_after=1), openai.RateLimitError),
        (errors.ServiceUnavailable("full"), openai.InternalServerError),
        (errors.InferenceFailed("broken"), openai.InternalServerError),
    ],
    ids=lambda value: value.code if isinstance(value, errors.InfernoError) else "",
)
def test_errors_map_to_the_packages_own(
    sdk: openai.OpenAI, engine: FakeEngine, refusal: errors.InfernoError, raised: type[openai.APIStatusError]
) -> None:
    engine.refusal = refusal
    with pytest.raises(raised) as caught:
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.code == refusal.code
    assert caught.value.param == refusal.details.get("field")
    assert caught.value.request_id is not None


@pytest.mark.acceptance("A5", "O5")
def test_wrong_key(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").models.list()


@pytest.mark.acceptance("O5")
def test_an_error_in_a_stream_is_raised(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    engine.reason = "error"
    stream = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="The engine failed"):
        list(stream)


def test_leaving_a_stream_cancels(serve: Callable[..., Live], silent_engine: FakeEngine) -> None:
    live = serve(silent_engine)
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=KEY, http_client=httpx.Client()) as client:
        stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        generation = live.engine.next()
        stream.close()
        assert live.engine.cancelled.get(timeout=5) == generation.sequence_ids
