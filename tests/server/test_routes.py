"""Who may call what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from inferno import errors
from inferno.identity.api_keys import create_key
from inferno.identity.callers import ROLES
from inferno.identity.users import create_user
from inferno.server.openapi import _BODIES
from inferno.server.route import RouteSpec
from inferno.server.routes import route_table, socket_table
from inferno.server.services import Services
from sqlalchemy import Connection
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_websocket

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import Live, make_services, shared_database

MATRIX = Path(__file__).with_name("routes.matrix")
GUARDED = [route for route in route_table() if route.permission != "public"]
PUBLIC = [route for route in route_table() if route.permission == "public"]


def path_of(route: RouteSpec) -> str:
    return re.sub(r"{\w+}", "unknown", route.path.replace("{model_id:path}", "llama-2-7b"))


def name_of(route: RouteSpec) -> str:
    return f"{route.method} {route.path}"


def matrix() -> dict[tuple[str, str], tuple[str, list[str]]]:
    """(method, path) -> permission, roles."""
    lines = [line.split() for line in MATRIX.read_text().splitlines() if line and not line.startswith("#")]
    return {(method, path): (permission, roles) for method, path, permission, *roles in lines}


@pytest.mark.acceptance("S8")
def test_matrix_lists_every_route() -> None:
    listed = {route: permission for route, (permission, _) in matrix().items()}
    http = {(route.method, route.path): route.permission for route in route_table()}
    assert listed == http | {("WS", socket.path): socket.permission for socket in socket_table()}


@pytest.mark.acceptance("V1")
def test_every_native_route_has_a_versioned_twin() -> None:
    paths = {route.path for route in (*route_table(), *socket_table())}
    assert {f"/v1{path}" for path in paths if not path.startswith("/v1/")} <= paths


def test_every_route_is_described() -> None:
    assert {route.path.replace(":path", "").removeprefix("/v1") for route in route_table()} == set(_BODIES)


@pytest.mark.acceptance("A5", "A7", "S8")
@pytest.mark.parametrize("route", GUARDED, ids=name_of)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic dGVzdA=="}])
def test_guarded_routes_need_a_key(
    connect: Callable[..., httpx.Client], services: Services, route: RouteSpec, headers: dict[str, str]
) -> None:
    response = connect(services, headers).request(route.method, path_of(route), json={})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "AUTHENTICATION_FAILED"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.acceptance("A7")
@pytest.mark.parametrize("route", PUBLIC, ids=name_of)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_public_routes_ignore_keys(
    connect: Callable[..., httpx.Client], services: Services, route: RouteSpec, headers: dict[str, str]
) -> None:
    body: dict[str, str] | None = None if route.method == "GET" else {}
    response = connect(services, headers).request(route.method, path_of(route), json=body)
    assert response.status_code == (200 if route.method == "GET" else 400)


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """Role -> an API key of somebody who has it."""

    def create(connection: Connection) -> dict[str, str]:
        made = {}
        for role in ROLES:
            user = create_user(connection, f"{role}-of-the-matrix", role=role)
            made[role], _ = create_key(connection, user, "matrix")
        return made

    return shared_database().write_now(create)


@pytest.mark.acceptance("A1", "A6", "A7", "S8")
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", GUARDED, ids=name_of)
def test_each_role_may_what_the_matrix_says(
    connect: Callable[..., httpx.Client], services: Services, keys: dict[str, str], route: RouteSpec, role: str
) -> None:
    headers = {"Authorization": f"Bearer {keys[role]}"}
    response = connect(services, headers).request(route.method, path_of(route), json={})
    _, roles = matrix()[route.method, route.path]
    assert (response.status_code == 403) == (role not in roles)
    if response.status_code == 403:
        assert response.json()["error"]["code"] == errors.AuthorizationFailed.code
    assert response.status_code != 401


@pytest.fixture(scope="module")
def sockets_of() -> Iterator[Live]:
    live = Live(make_services(FakeEngine(())))
    yield live
    live.stop()


def ask(live: Live, path: str, *messages: dict[str, Any], headers: Mapping[str, str]) -> tuple[str, str]:
    """Type and code of the first answer to the last of `messages`."""
    with connect_websocket(f"ws://127.0.0.1:{live.port}{path}", additional_headers=headers, proxy=None) as connection:
        for message in messages:
            connection.send(json.dumps(message))
            answer = json.loads(connection.recv(PATIENCE_S))
    return answer["type"], answer.get("code", "")


ASK = {"type": "inference", "id": "a", "model": "llama-2-7b", "prompt": "x"}


@pytest.mark.acceptance("A5", "S8", "W8")
@pytest.mark.parametrize("path", [socket.path for socket in socket_table()])
def test_guarded_sockets_need_a_key(sockets_of: Live, path: str) -> None:
    assert ask(sockets_of, path, ASK, headers={}) == ("error", "AUTHENTICATION_FAILED")
    assert ask(sockets_of, path, {"type": "auth", "token": "wrong"}, headers={}) == ("error", "AUTHENTICATION_FAILED")
    with pytest.raises(InvalidStatus) as refused:
        ask(sockets_of, path, ASK, headers={"Authorization": "Bearer wrong"})
    assert refused.value.response.status_code == 401


@pytest.mark.acceptance("A6", "S8")
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", [socket.path for socket in socket_table()])
def test_each_role_may_open_what_the_matrix_says(sockets_of: Live, keys: dict[str, str], path: str, role: str) -> None:
    _, roles = matrix()["WS", path]
    expected = ("complete", "") if role in roles else ("error", "AUTHORIZATION_FAILED")
    assert ask(sockets_of, path, {"type": "auth", "token": keys[role]}, ASK, headers={}) == expected


@pytest.mark.acceptance("A6", "S8")
@pytest.mark.parametrize("path", [socket.path for socket in socket_table()])
def test_a_key_without_the_permission_opens_no_socket(sockets_of: Live, path: str) -> None:
    def create(connection: Connection) -> str:
        user = create_user(connection, "narrow" + path.replace("/", "-"))
        return create_key(connection, user, "narrow", scopes=["models:read"])[0]

    narrow = shared_database().write_now(create)
    with pytest.raises(InvalidStatus) as refused:
        ask(sockets_of, path, ASK, headers={"Authorization": f"Bearer {narrow}"})
    assert refused.value.response.status_code == 403
    answer = ask(sockets_of, path, {"type": "auth", "token": narrow}, headers={})
    assert answer == ("error", "AUTHORIZATION_FAILED")


@pytest.mark.acceptance("G4", "X3")
@pytest.mark.parametrize("route", route_table(), ids=name_of)
def test_other_methods_are_405(client: httpx.Client, route: RouteSpec) -> None:
    response = client.request("PATCH", path_of(route))
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "METHOD_NOT_ALLOWED"
    assert route.method in response.headers["allow"].split(", ")


@pytest.mark.acceptance("A7")
def test_metrics_can_be_public(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    services = make_services(engine, server__metrics_public=True)
    client = connect(services, {})
    assert [client.get(path).status_code for path in ("/metrics", "/v1/metrics")] == [200, 200]
    assert [client.get(path).status_code for path in ("/metrics/json", "/metrics/snapshot", "/v1/status")] == [401] * 3


@pytest.mark.acceptance("S8")
def test_authorisation_looks_at_the_path_alone(connect: Callable[..., httpx.Client], services: Services) -> None:
    headers = {"Host": "localhost", "X-Original-URL": "/health", "X-Forwarded-Path": "/health"}
    assert connect(services, headers).get("/models?/health").status_code == 401
