"""`response_format` and `json_schema` reach the engine by every door, and what is wrong with them is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from inferno import errors
from inferno.server.body import Body
from inferno.server.dialects import batch, native, openai_chat, openai_completions, websocket
from jsonschema import Draft202012Validator

from tests.fakes import FakeEngine
from tests.server.conftest import CHAT, MODEL, PROMPT

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
BAD: dict[str, Any] = {"type": "object", "properties": {"tags": {"uniqueItems": True}}}


def asking_for(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema, **more}}


def _batch_item(body: Body) -> dict[str, Any]:
    shared = {key: value for key, value in body.fields.items() if key != "prompt"}
    (item,) = batch.parse(Body({**shared, "requests": [{"prompt": "x"}]}), 1).items
    return dict(item.sampling)


DOORS: dict[str, tuple[Callable[[Body], dict[str, Any]], dict[str, Any]]] = {
    "native": (lambda body: native.parse(body).sampling, PROMPT),
    "websocket": (lambda body: websocket.parse(body).sampling, PROMPT),
    "batch": (_batch_item, PROMPT),
    "chat": (lambda body: openai_chat.parse(body).sampling, CHAT),
    "completions": (lambda body: openai_completions.parse(body).sampling, PROMPT),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("fields", "schema"),
    [
        ({"response_format": asking_for(SCHEMA)}, SCHEMA),
        ({"response_format": asking_for(SCHEMA, strict=None, description="A person")}, SCHEMA),
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        ({"json_schema": SCHEMA}, SCHEMA),
        ({"json_schema": json.dumps(SCHEMA)}, SCHEMA),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": None}, None),
    ],
)
def test_a_schema_reaches_the_engine(door: str, fields: dict[str, Any], schema: dict[str, Any] | None) -> None:
    parse, base = DOORS[door]
    text = parse(Body({**base, **fields})).get("json_schema")
    assert (text and json.loads(text)) == schema


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"response_format": "json_object"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"response_format": asking_for([])}, "response_format.json_schema.schema"),
        ({"response_format": asking_for(SCHEMA, strict=1)}, "response_format.json_schema.strict"),
        ({"response_format": asking_for(SCHEMA, name=1)}, "response_format.json_schema.name"),
        (
            {"response_format": asking_for(BAD)},
            "response_format.json_schema.schema.properties.tags.uniqueItems",
        ),
        ({"json_schema": BAD}, "json_schema.properties.tags.uniqueItems"),
        ({"json_schema": []}, "json_schema"),
        ({"json_schema": "{"}, "json_schema"),
        ({"json_schema": ""}, "json_schema"),
        ({"json_schema": {"a": "x" * 65536}}, "json_schema"),
        ({"json_schema": SCHEMA, "grammar": 'root ::= "a"'}, "json_schema"),
        ({"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, "response_format"),
        ({"response_format": {"type": "json_object"}, "json_schema": SCHEMA}, "response_format"),
    ],
)
def test_what_is_wrong_is_named_as_the_client_wrote_it(door: str, fields: dict[str, Any], field: str) -> None:
    parse, base = DOORS[door]
    with pytest.raises(errors.InvalidRequest) as caught:
        parse(Body({**base, **fields}))
    assert caught.value.field == field
    assert field in caught.value.message


def test_an_items_own_schema_is_named_in_a_batch() -> None:
    rows = [{"prompt": "x"}, {"prompt": "x", "json_schema": BAD}]
    with pytest.raises(errors.InvalidRequest) as caught:
        batch.parse(Body({"model": MODEL, "requests": rows}), 2)
    assert caught.value.field == "requests[1].json_schema.properties.tags.uniqueItems"


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("/inference", PROMPT),
        ("/inference/stream", PROMPT),
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", PROMPT),
    ],
)
def test_over_http(client: httpx.Client, engine: FakeEngine, path: str, base: dict[str, Any]) -> None:
    body = {**base, "response_format": asking_for(SCHEMA)}
    assert client.post(path, json=body).status_code == 200
    assert json.loads(engine.next().request.sampling["json_schema"]) == SCHEMA
    refused = client.post(path, json={**base, "response_format": asking_for(BAD)})
    assert refused.status_code == 400
    assert refused.json()["error"]["details"]["field"].startswith("response_format.json_schema.schema.properties")


def test_the_openapi_document_knows_it(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("Inference", "ChatCompletion", "Completion", "Batch"):
        fields = Draft202012Validator({"properties": schemas[name]["properties"]})
        for good in (None, {"type": "text"}, {"type": "json_object"}, asking_for(SCHEMA)):
            assert fields.is_valid({"response_format": good, "json_schema": SCHEMA})
        for bad in ({"type": "xml"}, {"type": "json_schema"}, "json_object"):
            assert not fields.is_valid({"response_format": bad})


def test_a_schema_deeper_than_a_body_may_be(client: httpx.Client) -> None:
    schema = '{"type":"array","items":' * 1000 + "true" + "}" * 1000
    base = json.dumps({**PROMPT, "json_schema": "HERE"})
    nested = client.post("/inference", content=base.replace('"HERE"', schema))
    as_text = client.post("/inference", json={**PROMPT, "json_schema": schema})
    assert (nested.status_code, as_text.status_code) == (400, 400)
    assert as_text.json()["error"]["details"]["field"] == "json_schema"
