"""The OpenAPI document, and answers held to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from inferno import _core
from inferno.identity.passwords import hash_password
from inferno.identity.users import create_user
from inferno.server.route import RouteSpec
from inferno.server.routes import route_table
from inferno.store.database import Database
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from tests.fakes import FakeEngine
from tests.server.conftest import CHAT, MODEL, PROMPT, make_services


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


def check(document: dict[str, Any], method: str, path: str, response: httpx.Response) -> None:
    """The answer is what the document says of its status."""
    described = document["paths"][path][method.lower()]["responses"][str(response.status_code)]
    assert response.headers["content-type"] == "application/json"
    pointer = {**described["content"]["application/json"]["schema"], "components": document["components"]}
    Draft202012Validator(pointer).validate(response.json())


@pytest.mark.acceptance("G2")
@pytest.mark.parametrize(("method", "path", "body"), EXCHANGES, ids=[row[1] for row in EXCHANGES])
def test_answers_follow_their_schemas(
    client: httpx.Client, document: dict[str, Any], method: str, path: str, body: Any
) -> None:
    client.post("/inference", json=PROMPT)
    check(document, method, path, client.request(method, path.replace("{model_id}", MODEL), json=body))


LOGIN = {"username": "user", "password": "pass"}
#: Exchanges that follow from each other. What stands in braces is known from an earlier answer.
CHAIN: list[tuple[str, str, Any]] = [
    ("POST", "/auth/login", LOGIN),
    ("POST", "/auth/refresh", {"refresh_token": "{refresh_token}"}),
    ("POST", "/batch", {"model": MODEL, "requests": [{"id": "a", "prompt": "x"}]}),
    ("GET", "/batch", None),
    ("GET", "/batch/{batch_id}", None),
    ("POST", "/batch/{batch_id}/cancel", None),
    ("GET", "/batch/{batch_id}/results", None),
    ("DELETE", "/batch/{batch_id}", None),
    ("POST", "/webhooks", {"webhook_url": "https://93.184.216.34/", "events": ["batch.complete"]}),
    ("GET", "/webhooks", None),
    ("GET", "/webhooks/{webhook_id}", None),
    ("POST", "/webhooks/{webhook_id}/test", None),
    ("POST", "/webhooks/{webhook_id}/secret", None),
    ("GET", "/webhooks/{webhook_id}/deliveries", None),
    ("POST", "/webhooks/deliveries/{delivery_id}/replay", None),
    ("DELETE", "/webhooks/{webhook_id}", None),
    ("POST", "/auth/logout", None),
]
#: What an answer teaches, by its name there.
LEARNT = {"refresh_token": "refresh_token", "batch_id": "batch_id", "delivery": "delivery_id"}


@pytest.mark.acceptance("G2")
def test_answers_that_follow_from_each_other(
    connect: Callable[..., httpx.Client], engine: FakeEngine, document: dict[str, Any]
) -> None:
    database = Database("")
    hashed = hash_password(LOGIN["password"])
    database.write_now(lambda c: create_user(c, LOGIN["username"], password_hash=hashed))
    client, known = connect(make_services(engine, database=database), {}), dict[str, str]()
    for method, path, body in CHAIN:
        if isinstance(body, dict) and "refresh_token" in body:
            body = {"refresh_token": known["refresh_token"]}
        response = client.request(method, path.format(**known), json=body)
        assert response.status_code == 200, response.text
        check(document, method, path, response)
        told = response.json()
        known |= {ours: told[theirs] for theirs, ours in LEARNT.items() if theirs in told}
        if path == "/auth/refresh":
            client.headers["Authorization"] = f"Bearer {told['token']}"
        if (method, path) == ("POST", "/webhooks"):
            known["webhook_id"] = told["id"]
    database.close()


def test_no_answer_is_left_out() -> None:
    """What is JSON is in one of the two tables; twins under /v1 are the same routes."""
    tried = {(method, path.removeprefix("/v1")) for method, path, _ in (*EXCHANGES, *CHAIN)}
    other = {"/inference/stream", "/metrics", "/openapi.json"}
    routes = {(route.method, route.path.replace(":path", "").removeprefix("/v1")) for route in route_table()}
    assert {(method, path) for method, path in routes if path not in other} == tried


@pytest.mark.acceptance("G2", "X1")
@pytest.mark.parametrize("route", route_table(), ids=lambda route: f"{route.method} {route.path}")
def test_refusals_are_described(
    connect: Callable[..., httpx.Client], engine: FakeEngine, document: dict[str, Any], route: RouteSpec
) -> None:
    """Whatever is wrong with a request, its route's description has the status, and the answer is of that form."""
    limits = {"limits__enabled": True, "limits__requests_per_minute": 3, "limits__logins_per_minute": 3}
    client = connect(make_services(engine, server__max_body_bytes=1024, **limits))
    path = route.path.replace(":path", "")
    statuses = set()
    wrong: list[dict[str, Any]] = [
        {"headers": {"Authorization": "Bearer wrong"}},
        {"headers": {"API-Version": "9"}},
        {"content": b" " * 2000},
        {"content": b"x", "headers": {"Content-Type": "text/plain"}},
        {"json": {"username": "nobody", "password": "x", "refresh_token": "x"}},
        {},
        {},
    ]
    for request in wrong:
        response = client.request(route.method, re.sub(r"{\w+}", "none", path), **request)
        if response.is_error:
            check(document, route.method, path, response)
            statuses.add(response.status_code)
    assert 400 in statuses
    if route.permission != "public":
        assert 401 in statuses


@pytest.mark.acceptance("X1")
@pytest.mark.parametrize("path", ["/inference", "/v1/chat/completions", "/none"])
def test_errors_follow_their_schema(client: httpx.Client, document: dict[str, Any], path: str) -> None:
    pointer = {"$ref": "#/components/schemas/Error", "components": document["components"]}
    Draft202012Validator(pointer).validate(client.post(path, json={}).json())
