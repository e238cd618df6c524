"""X1-X4, V1-V3, T43, T45, T50: what every answer has, and what is refused before any route."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from inferno import errors
from inferno.server import app as app_module
from inferno.server.errors import STATUS
from inferno.server.route import Deprecation
from inferno.server.routes import route_table, socket_table
from websockets.sync.client import connect as websocket

from tests.fakes import FakeEngine
from tests.server.conftest import AUTH, MODEL, PROMPT, Live, make_services

#: The document's codes with the statuses that it lists, and ours beside them.
DOCUMENTED = {
    "INVALID_REQUEST": 400,
    "AUTHENTICATION_FAILED": 401,
    "AUTHORIZATION_FAILED": 403,
    "MODEL_NOT_FOUND": 404,
    "MODEL_NOT_LOADED": 400,
    "RATE_LIMIT_EXCEEDED": 429,
    "CONTEXT_LENGTH_EXCEEDED": 400,
    "INFERENCE_FAILED": 500,
    "TIMEOUT": 503,
    "INTERNAL_ERROR": 500,
}
EXTENSIONS = {
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "SERVICE_UNAVAILABLE": 503,
}

ANSWERS: list[tuple[int, str, str, dict[str, Any]]] = [
    (200, "GET", "/health", {}),
    (200, "HEAD", "/models", {}),
    (200, "POST", "/inference", {"json": PROMPT}),
    (200, "POST", "/inference/stream", {"json": PROMPT}),
    (200, "POST", "/v1/chat/completions", {"json": {**PROMPT, "messages": [{"role": "user", "content": "x"}]}}),
    (204, "OPTIONS", "/models", {}),
    (400, "POST", "/inference", {"json": {}}),
    (400, "GET", "/health", {"headers": {"API-Version": "9"}}),
    (400, "GET", "/health", {"headers": {"Host": "evil.example"}}),
    (401, "GET", "/models", {"headers": {"Authorization": "Bearer wrong"}}),
    (404, "GET", "/none", {}),
    (404, "GET", "/v1/models/none", {}),
    (405, "DELETE", "/models", {}),
    (413, "POST", "/inference", {"content": b" " * 2000}),
    (415, "POST", "/inference", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
]


@pytest.mark.acceptance("V1", "V2", "X1")
@pytest.mark.parametrize(("status", "method", "path", "request_"), ANSWERS)
def test_every_answer_has_id_and_version(
    connect: Callable[..., httpx.Client],
    engine: FakeEngine,
    status: int,
    method: str,
    path: str,
    request_: dict[str, Any],
) -> None:
    client = connect(make_services(engine, server__max_body_bytes=1024))
    response = client.request(method, path, **request_)
    assert response.status_code == status
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["api-version"] == "1.0"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.acceptance("X1")
def test_a_sane_request_id_is_kept(client: httpx.Client) -> None:
    response = client.get("/none", headers={"X-Request-ID": "my.id-1_2"})
    assert response.headers["x-request-id"] == response.json()["request_id"] == "my.id-1_2"


def test_openais_routes_say_how_long_they_took(client: httpx.Client) -> None:
    for path in ("/v1/models", "/v1/none"):
        assert client.get(path).headers["openai-processing-ms"].isdecimal()
    assert "openai-processing-ms" not in client.get("/models").headers


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a;b", "é".encode(), "<script>"])
def test_other_request_ids_are_replaced(client: httpx.Client, given: Any) -> None:
    assert client.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"].startswith("req_")


@pytest.mark.acceptance("V2")
@pytest.mark.parametrize("version", ["1", "1.0", "v1", " 1.0 "])
def test_known_versions(client: httpx.Client, version: str) -> None:
    assert client.get("/health", headers={"API-Version": version}).status_code == 200


@pytest.mark.acceptance("V2")
@pytest.mark.parametrize("version", ["2", "1.1", "", "v2"])
def test_unknown_versions(client: httpx.Client, version: str) -> None:
    response = client.get("/health", headers={"API-Version": version})
    assert (response.status_code, response.json()["error"]["details"]) == (400, {"field": "API-Version"})


@pytest.mark.acceptance("G4", "X3")
@pytest.mark.parametrize("path", ["/", "/none", "/health/", "/v2/models", "/inference/", "/docs", "/%2e%2e/health"])
def test_unknown_routes_are_404(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.acceptance("O5")
@pytest.mark.parametrize(
    ("method", "path", "headers", "kind"),
    [
        ("POST", "/v1/chat/completions", {}, "invalid_request_error"),
        ("POST", "/v1/inference", {}, "invalid_request_error"),
        ("GET", "/v1/none", {}, "invalid_request_error"),
        ("PATCH", "/v1/models", {}, "invalid_request_error"),
        ("GET", "/v1/models", {"Authorization": "Bearer wrong"}, "authentication_error"),
    ],
)
def test_openai_routes_have_openais_keys_in_errors(
    client: httpx.Client, method: str, path: str, headers: dict[str, str], kind: str
) -> None:
    def error(path: str) -> dict[str, Any]:
        return dict(client.request(method, path, json={}, headers=headers).json()["error"])

    assert error(path).keys() == {"code", "message", "details", "type", "param"}
    assert error(path)["type"] == kind
    assert error("/v2").keys() == {"code", "message", "details"}


@pytest.mark.acceptance("O5")
@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_openais_types_of_errors(client: httpx.Client, engine: FakeEngine, code: str) -> None:
    engine.refusal = errors.BY_CODE[code]("Said so.")
    error = client.post("/v1/completions", json=PROMPT).json()["error"]
    by_status = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    by_status |= {500: "server_error", 503: "server_error"}
    assert error["type"] == by_status.get(STATUS[code], "invalid_request_error")
    assert (error["code"], error["param"]) == (code, None)


@pytest.mark.acceptance("X2", "X3")
def test_every_code_has_a_status() -> None:
    assert STATUS == DOCUMENTED | EXTENSIONS
    assert STATUS.keys() == errors.BY_CODE.keys()


@pytest.mark.acceptance("X1", "X2", "X3", "X4")
@pytest.mark.parametrize(("code", "status"), (DOCUMENTED | EXTENSIONS).items())
def test_every_error_is_in_the_envelope(client: httpx.Client, engine: FakeEngine, code: str, status: int) -> None:
    engine.refusal = errors.BY_CODE[code]("Said so.", hint=1)
    response = client.post("/inference", json=PROMPT)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    extra = {"retry_after": 1} if status == 429 else {}
    assert body["error"] == {"code": code, "message": "Said so.", "details": {"hint": 1}, **extra}
    assert ("retry-after" in response.headers) == (status in (429, 503))


@pytest.mark.acceptance("L3")
def test_rate_limit_errors_carry_retry_after(client: httpx.Client, engine: FakeEngine) -> None:
    engine.refusal = errors.RateLimitExceeded("Please retry after 30 seconds.", retry_after=30)
    response = client.post("/inference", json=PROMPT)
    assert (response.headers["retry-after"], response.json()["error"]["retry_after"]) == ("30", 30)


def test_clients_do_not_repeat_a_timeout(client: httpx.Client, engine: FakeEngine) -> None:
    engine.refusal = errors.RequestTimeout("late")
    assert client.post("/v1/completions", json=PROMPT).headers["x-should-retry"] == "false"


@pytest.mark.acceptance("X1")
def test_bugs_are_told_to_the_log_only(
    client: httpx.Client, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "submit", lambda _: 1 / 0)
    response = client.post("/inference", json=PROMPT)
    assert response.status_code == 500
    assert response.json()["error"] == {
        "code": "INTERNAL_ERROR",
        "message": "Something went wrong inside the server.",
        "details": {},
    }
    assert "ZeroDivisionError" in caplog.text


def test_head_has_the_headers_and_no_body(client: httpx.Client) -> None:
    get, head = client.get("/models"), client.head("/models")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]


def test_options_names_the_methods(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    response = connect(make_services(engine), {}).options("/v1/chat/completions")
    assert (response.status_code, response.headers["allow"], response.content) == (204, "OPTIONS, POST", b"")


# ---- hosts and origins ----


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST"])
def test_loopback_names_are_ours(client: httpx.Client, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "@localhost"]
)
def test_other_hosts_are_not(client: httpx.Client, host: str) -> None:
    response = client.get("/health", headers={"Host": host})
    assert (response.status_code, response.json()["error"]["details"]) == (400, {"field": "Host"})


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize(
    "setting", [{"server__allowed_hosts": ["Inferno.Example"]}, {"server__host": "Inferno.Example"}]
)
def test_hosts_can_be_allowed(
    connect: Callable[..., httpx.Client], engine: FakeEngine, setting: dict[str, Any]
) -> None:
    """However they are spelt: names know no case."""
    client = connect(make_services(engine, **setting))
    for host in ("inferno.example:80", "INFERNO.example"):
        assert client.get("/health", headers={"Host": host}).status_code == 200


def test_a_server_on_every_address_takes_every_name(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, server__host="0.0.0.0"))
    assert client.get("/health", headers={"Host": "any.example"}).status_code == 200


#: Of the `openai` package for JavaScript, in a browser.
SDK_HEADERS = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)
PREFLIGHT = {
    "Origin": "https://app.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": SDK_HEADERS,
}


@pytest.mark.acceptance("S8")
def test_no_origin_is_allowed_by_default(client: httpx.Client) -> None:
    for response in (client.options("/inference", headers=PREFLIGHT), client.get("/health", headers=PREFLIGHT)):
        assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize(("origins", "answer"), [(["https://app.example"], "https://app.example"), (["*"], "*")])
def test_origins_can_be_allowed(
    connect: Callable[..., httpx.Client], engine: FakeEngine, origins: list[str], answer: str
) -> None:
    client = connect(make_services(engine, server__cors_origins=origins), {})
    preflight = client.options("/inference", headers=PREFLIGHT)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == answer
    assert preflight.headers["access-control-allow-headers"] == SDK_HEADERS
    assert "access-control-allow-credentials" not in preflight.headers
    methods = set(preflight.headers["access-control-allow-methods"].split(", "))
    assert methods == {route.method for route in route_table()}
    refused = client.post("/inference", json={}, headers={"Origin": "https://app.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == answer
    assert refused.headers["access-control-expose-headers"] == "*"


@pytest.mark.acceptance("S8")
def test_other_origins_stay_out(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, server__cors_origins=["https://app.example"]))
    headers = client.get("/health", headers={"Origin": "https://evil.example"}).headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.acceptance("A7", "S8")
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET"])
@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:1", "null"])
def test_without_keys_pages_from_elsewhere_are_refused(
    connect: Callable[..., httpx.Client], engine: FakeEngine, method: str, origin: str
) -> None:
    """Any page may send a POST without a content type; only a key, or its origin, keeps it from having effect."""
    client = connect(make_services(engine, key=None), {})
    refused = client.request(method, f"/models/{MODEL}/load", headers={"Origin": origin})
    assert (refused.status_code, refused.json()["error"]["details"]) == (403, {"field": "Origin"})
    assert client.get("/health").json()["models_loaded"] == 0
    ours = client.post(f"/models/{MODEL}/load", headers={"Origin": "http://localhost"})
    assert ours.status_code == 200


def test_without_keys_listed_pages_are_not_refused(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, key=None, server__cors_origins=["https://app.example"]), {})
    assert client.get("/models", headers={"Origin": "https://app.example"}).status_code == 200


# ---- deprecation ----

NOTICE = Deprecation(
    datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC), "https://docs.example/migration"
)
TOLD = {
    "deprecation": "@1767225600",
    "sunset": "Sat, 01 Aug 2026 00:00:00 GMT",
    "link": '<https://docs.example/migration>; rel="deprecation"; type="text/html"',
}


@pytest.fixture
def old_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """/health, /models and the WebSockets are deprecated."""
    routes = (
        msgspec.structs.replace(route, deprecation=NOTICE) if route.path in ("/health", "/models") else route
        for route in route_table()
    )
    sockets = (msgspec.structs.replace(socket, deprecation=NOTICE) for socket in socket_table())
    monkeypatch.setattr(app_module, "route_table", lambda made=tuple(routes): made)
    monkeypatch.setattr(app_module, "socket_table", lambda made=tuple(sockets): made)


@pytest.mark.acceptance("V3")
@pytest.mark.usefixtures("old_routes")
def test_deprecated_routes_say_so(client: httpx.Client) -> None:
    """Refusals too: who calls is to know, whatever comes of it."""
    for response in (
        client.get("/health"),
        client.get("/models"),
        client.get("/models", headers={"Authorization": "Bearer wrong"}),
    ):
        assert {name: response.headers.get(name) for name in TOLD} == TOLD
    for response in (client.get("/v1/health"), client.get("/none"), client.post("/inference", json=PROMPT)):
        assert TOLD.keys().isdisjoint(response.headers)
    paths = client.get("/openapi.json").json()["paths"]
    marked = {path for path, methods in paths.items() if any(way.get("deprecated") for way in methods.values())}
    assert marked == {"/health", "/models"}


@pytest.mark.acceptance("V3")
@pytest.mark.usefixtures("old_routes")
def test_deprecated_websockets_say_so(serve: Callable[..., Live], engine: FakeEngine) -> None:
    live = serve(engine)
    with websocket(f"ws://127.0.0.1:{live.port}/ws", additional_headers=AUTH, proxy=None) as connection:
        assert connection.response is not None
        assert {name: connection.response.headers.get(name) for name in TOLD} == TOLD


@pytest.mark.acceptance("V3")
def test_less_than_six_months_of_notice_cannot_be_written_down() -> None:
    since = datetime(2026, 3, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="six months"):
        Deprecation(since, datetime(2026, 8, 31, tzinfo=UTC), "https://docs.example/x")
    Deprecation(since, datetime(2026, 9, 1, tzinfo=UTC), "https://docs.example/x")


@pytest.mark.acceptance("V3")
def test_the_policy_is_written_down() -> None:
    """docs/versioning.md shows the headers that a deprecated route has, and each deprecated route has its guide."""
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "versioning.md").read_text()
    shown = [(b"deprecation", b"@1767225600"), (b"sunset", b"Sat, 01 Aug 2026 00:00:00 GMT")]
    assert NOTICE.headers()[:2] == shown
    for name, value in shown:
        assert f"{name.decode().title()}: {value.decode()}" in page
    for spec in (*route_table(), *socket_table()):
        if spec.deprecation is not None:
            assert (docs / "migrations" / Path(spec.deprecation.guide).name).exists()


# ---- the log ----


def test_log_line_has_the_route_and_no_secrets(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inferno.access")
    client.post("/models/llama-2-7b/load?key=secret", json={})
    fields = caplog.records[-1].__dict__["fields"]
    assert fields["route"] == "/models/{model_id:path}/load"
    assert (fields["method"], fields["status"]) == ("POST", 200)
    text = str([record.__dict__ for record in caplog.records])
    assert AUTH["Authorization"].split()[1] not in text
    assert "secret" not in text
