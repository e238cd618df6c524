"""Who may call what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from inferno import errors
from inferno.identity.keys import Caller
from inferno.server.openapi import _BODIES
from inferno.server.route import RouteSpec
from inferno.server.routes import route_table, socket_table
from inferno.server.services import Services

from tests.fakes import FakeEngine
from tests.server.conftest import make_services

MATRIX = Path(__file__).with_name("routes.matrix")
GUARDED = [route for route in route_table() if route.permission != "public"]
PUBLIC = [route for route in route_table() if route.permission == "public"]


def path_of(route: RouteSpec) -> str:
    return route.path.replace("{model_id:path}", "llama-2-7b")


def name_of(route: RouteSpec) -> str:
    return f"{route.method} {route.path}"


def test_matrix_lists_every_route() -> None:
    lines = [line.split() for line in MATRIX.read_text().splitlines() if line and not line.startswith("#")]
    listed = {(method, path): permission for method, path, permission in lines}
    http = {(route.method, route.path): route.permission for route in route_table()}
    assert listed == http | {("WS", socket.path): socket.permission for socket in socket_table()}


def test_every_native_route_has_a_versioned_twin() -> None:
    paths = {route.path for route in (*route_table(), *socket_table())}
    assert {f"/v1{path}" for path in paths if not path.startswith("/v1/")} <= paths


def test_every_route_is_described() -> None:
    assert {route.path.replace(":path", "").removeprefix("/v1") for route in route_table()} == set(_BODIES)


@pytest.mark.parametrize("route", GUARDED, ids=name_of)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic dGVzdA=="}])
def test_guarded_routes_need_a_key(
    connect: Callable[..., httpx.Client], services: Services, route: RouteSpec, headers: dict[str, str]
) -> None:
    response = connect(services, headers).request(route.method, path_of(route), json={})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "AUTHENTICATION_FAILED"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("route", PUBLIC, ids=name_of)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_public_routes_ignore_keys(
    connect: Callable[..., httpx.Client], services: Services, route: RouteSpec, headers: dict[str, str]
) -> None:
    assert connect(services, headers).request(route.method, path_of(route)).status_code == 200


@pytest.mark.parametrize("route", GUARDED, ids=name_of)
def test_a_key_without_the_permission_is_turned_away(
    connect: Callable[..., httpx.Client], engine: FakeEngine, route: RouteSpec
) -> None:
    services = make_services(engine)
    others = services.keys.authenticate({"x-api-key": "test-key-12345"}).permissions - {route.permission}
    services.keys.authenticate = lambda headers: Caller("c", others, 0)  # type: ignore[method-assign]
    response = connect(services).request(route.method, path_of(route), json={})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == errors.AuthorizationFailed.code


@pytest.mark.parametrize("route", route_table(), ids=name_of)
def test_other_methods_are_405(client: httpx.Client, route: RouteSpec) -> None:
    response = client.request("DELETE", path_of(route))
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "METHOD_NOT_ALLOWED"
    assert route.method in response.headers["allow"].split(", ")


def test_metrics_can_be_public(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    services = make_services(engine, server__metrics_public=True)
    assert connect(services, {}).get("/metrics").status_code == 200


def test_authorisation_looks_at_the_path_alone(connect: Callable[..., httpx.Client], services: Services) -> None:
    headers = {"Host": "localhost", "X-Original-URL": "/health", "X-Forwarded-Path": "/health"}
    assert connect(services, headers).get("/models?/health").status_code == 401
