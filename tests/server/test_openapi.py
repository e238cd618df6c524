"""The OpenAPI document, and answers held to it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from inferno import _core
from inferno.server.routes import route_table
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from tests.server.conftest import CHAT, MODEL, PROMPT


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/openapi.json").json())


def test_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_every_route_is_in_it(document: dict[str, Any]) -> None:
    written = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert written == {(route.method, route.path.replace(":path", "")) for route in route_table()}


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


def test_only_public_routes_need_no_key(document: dict[str, Any]) -> None:
    for route in route_table():
        operation = document["paths"][route.path.replace(":path", "")][route.method.lower()]
        assert operation["security"] == ([] if route.permission == "public" else [{"key": []}])


@pytest.mark.parametrize("row", _core.sampling_fields(), ids=lambda row: row["name"])
def test_sampling_fields_have_the_engines_bounds(document: dict[str, Any], row: _core.FieldRow) -> None:
    for name in ("Inference", "Completion"):
        schema = document["components"]["schemas"][name]["properties"][row["name"]]
        assert schema["description"] == row["help"]
        if row["type"] in ("integer", "number"):
            assert schema["maximum"] == row["max"]


def test_defaults_differ_by_dialect(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    defaults = {name: schemas[name]["properties"] for name in ("Inference", "Completion", "ChatCompletion")}
    assert [fields["temperature"]["default"] for fields in defaults.values()] == [0.7, 1.0, 1.0]
    assert [fields["max_tokens"].get("default") for fields in defaults.values()] == [512, 16, None]


EXCHANGES: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("GET", "/livez", None),
    ("GET", "/readyz", None),
    ("GET", "/models", None),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/{model_id}", None),
    ("POST", "/models/{model_id}/load", {}),
    ("POST", "/models/{model_id}/unload", None),
    ("POST", "/inference", PROMPT),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/completions", PROMPT),
    ("POST", "/embeddings", {"model": MODEL, "input": "x"}),
    ("GET", "/metrics/json", None),
    ("GET", "/metrics/snapshot", None),
    ("POST", "/metrics/custom", {"name": "custom_metric", "value": 42.5, "type": "gauge"}),
    ("GET", "/traces", None),
    ("GET", "/v1/status", None),
]


@pytest.mark.parametrize(("method", "path", "body"), EXCHANGES, ids=[row[1] for row in EXCHANGES])
def test_answers_follow_their_schemas(
    client: httpx.Client, document: dict[str, Any], method: str, path: str, body: Any
) -> None:
    client.post("/inference", json=PROMPT)
    response = client.request(method, path.replace("{model_id}", MODEL), json=body)
    schema = document["paths"][path][method.lower()]["responses"][str(response.status_code)]["content"]
    pointer = {**schema["application/json"]["schema"], "components": document["components"]}
    Draft202012Validator(pointer).validate(response.json())


@pytest.mark.parametrize("path", ["/inference", "/v1/chat/completions", "/none"])
def test_errors_follow_their_schema(client: httpx.Client, document: dict[str, Any], path: str) -> None:
    pointer = {"$ref": "#/components/schemas/Error", "components": document["components"]}
    Draft202012Validator(pointer).validate(client.post(path, json={}).json())
