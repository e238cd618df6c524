"""B1, B2: POST /embeddings and /v1/embeddings."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest
from inferno import errors

from tests.fakes import FakeEngine, vector_of
from tests.server.conftest import MODEL

PATHS = ["/embeddings", "/v1/embeddings"]


def embed(client: httpx.Client, path: str = "/embeddings", **fields: Any) -> httpx.Response:
    return client.post(path, json={"model": MODEL, "input": ["Hello world", "How are you?"], **fields})


@pytest.mark.acceptance("B1", "O4", "V1")
@pytest.mark.parametrize("path", PATHS)
def test_answer_has_the_documented_shape(client: httpx.Client, path: str) -> None:
    body = embed(client, path, encoding_format="float").json()
    assert body["model"] == MODEL
    assert [item["index"] for item in body["data"]] == [0, 1]
    expected = np.frombuffer(vector_of("How are you?"), "<f4")
    assert body["data"][1]["embedding"] == pytest.approx(expected.tolist())
    assert body["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert (body["object"], body["data"][0]["object"]) == ("list", "embedding")


@pytest.mark.acceptance("B2")
@pytest.mark.parametrize("value", ["one", [1, 2, 3], [[1, 2, 3]], ["one"]])
def test_one_input_in_all_forms(client: httpx.Client, value: Any) -> None:
    (item,) = embed(client, input=value).json()["data"]
    assert all(isinstance(number, float) for number in item["embedding"])  # unless another encoding is asked for


@pytest.mark.acceptance("B2")
@pytest.mark.parametrize("path", PATHS)
def test_base64_is_little_endian_float32(client: httpx.Client, path: str) -> None:
    body = embed(client, path, encoding_format="base64").json()
    assert base64.b64decode(body["data"][0]["embedding"]) == vector_of("Hello world")


def test_fewer_dimensions_are_a_unit_vector_again(client: httpx.Client) -> None:
    vector = embed(client, dimensions=3).json()["data"][0]["embedding"]
    assert len(vector) == 3
    assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.acceptance("B2", "G4")
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", None]}, "input[1]"),
        ({"input": [[], "a"]}, "input[0]"),
        ({"input": [1, "a"]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": 1}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 9}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"model": None}, "model"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_bad_fields_are_named(client: httpx.Client, path: str, fields: dict[str, Any], field: str) -> None:
    response = embed(client, path, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["details"]["field"] == field


def test_refusals_of_the_engine(client: httpx.Client, engine: FakeEngine) -> None:
    engine.refusal = errors.InvalidRequest("The model does not make embeddings.", field="model")
    assert embed(client).status_code == 400
