"""X1-X4, V1-V3, T43, T45, T50: what every answer has, and what is refused before any route."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
from inferno import errors
from inferno.server import app as app_module
from inferno.server.errors import STATUS
from inferno.server.route import Deprecation
from inferno.server.routes import route_table

from tests.fakes import FakeEngine
from tests.server.conftest import AUTH, PROMPT, make_services


@pytest.mark.parametrize("path", ["/health", "/models", "/none", "/v1/models/none"])
def test_every_answer_has_id_and_version(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["api-version"] == "1.0"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_sane_request_id_is_kept(client: httpx.Client) -> None:
    response = client.get("/none", headers={"X-Request-ID": "my.id-1_2"})
    assert response.headers["x-request-id"] == response.json()["request_id"] == "my.id-1_2"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a;b", "é".encode(), "<script>"])
def test_other_request_ids_are_replaced(client: httpx.Client, given: Any) -> None:
    assert client.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("version", ["1", "1.0", "v1", " 1.0 "])
def test_known_versions(client: httpx.Client, version: str) -> None:
    assert client.get("/health", headers={"API-Version": version}).status_code == 200


@pytest.mark.parametrize("version", ["2", "1.1", "", "v2"])
def test_unknown_versions(client: httpx.Client, version: str) -> None:
    response = client.get("/health", headers={"API-Version": version})
    assert (response.status_code, response.json()["error"]["details"]) == (400, {"field": "API-Version"})


@pytest.mark.parametrize("path", ["/", "/none", "/health/", "/v2/models", "/inference/", "/docs", "/%2e%2e/health"])
def test_unknown_routes_are_404(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_openai_routes_have_openais_keys_in_errors(client: httpx.Client) -> None:
    native, openai = (client.post(path, json={}).json()["error"] for path in ("/inference", "/v1/chat/completions"))
    assert set(native) == {"code", "message", "details"}
    assert set(openai) == {"code", "message", "details", "type", "param"}


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(errors.BY_CODE)


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_every_error_is_in_the_envelope(client: httpx.Client, engine: FakeEngine, code: str) -> None:
    engine.refusal = errors.BY_CODE[code]("Said so.")
    response = client.post("/inference", json=PROMPT)
    assert response.status_code == STATUS[code]
    assert response.json()["error"]["code"] == code
    assert ("retry-after" in response.headers) == (response.status_code in (429, 503))


def test_rate_limit_errors_carry_retry_after(client: httpx.Client, engine: FakeEngine) -> None:
    engine.refusal = errors.RateLimitExceeded("Please retry after 30 seconds.", retry_after=30)
    response = client.post("/inference", json=PROMPT)
    assert (response.headers["retry-after"], response.json()["error"]["retry_after"]) == ("30", 30)


def test_clients_do_not_repeat_a_timeout(client: httpx.Client, engine: FakeEngine) -> None:
    engine.refusal = errors.RequestTimeout("late")
    assert client.post("/v1/completions", json=PROMPT).headers["x-should-retry"] == "false"


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


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST"])
def test_loopback_names_are_ours(client: httpx.Client, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "@localhost"]
)
def test_other_hosts_are_not(client: httpx.Client, host: str) -> None:
    response = client.get("/health", headers={"Host": host})
    assert (response.status_code, response.json()["error"]["details"]) == (400, {"field": "Host"})


def test_hosts_can_be_allowed(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, server__allowed_hosts=["inferno.example"]))
    assert client.get("/health", headers={"Host": "inferno.example:80"}).status_code == 200


def test_a_server_on_every_address_takes_every_name(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, server__host="0.0.0.0"))
    assert client.get("/health", headers={"Host": "any.example"}).status_code == 200


PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}


def test_no_origin_is_allowed_by_default(client: httpx.Client) -> None:
    for response in (client.options("/inference", headers=PREFLIGHT), client.get("/health", headers=PREFLIGHT)):
        assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("origins", "answer"), [(["https://app.example"], "https://app.example"), (["*"], "*")])
def test_origins_can_be_allowed(
    connect: Callable[..., httpx.Client], engine: FakeEngine, origins: list[str], answer: str
) -> None:
    client = connect(make_services(engine, server__cors_origins=origins), {})
    preflight = client.options("/inference", headers=PREFLIGHT)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == answer
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    refused = client.post("/inference", json={}, headers={"Origin": "https://app.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == answer


def test_other_origins_stay_out(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, server__cors_origins=["https://app.example"]))
    headers = client.get("/health", headers={"Origin": "https://evil.example"}).headers
    assert "access-control-allow-origin" not in headers


# ---- deprecation ----


def test_deprecated_routes_say_so(
    connect: Callable[..., httpx.Client], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC)
    notice = Deprecation(start, end, "https://docs.example/migration")
    old = tuple(msgspec.structs.replace(route, deprecation=notice) for route in route_table())
    monkeypatch.setattr(app_module, "route_table", lambda: old)
    headers = connect(make_services(engine)).get("/health").headers
    assert headers["deprecation"] == "@1767225600"
    assert headers["sunset"] == "Sat, 01 Aug 2026 00:00:00 GMT"
    assert 'rel="deprecation"' in headers["link"]


def test_nothing_is_deprecated_or_goes_too_soon() -> None:
    notices = [route.deprecation for route in route_table() if route.deprecation]
    assert all((notice.sunset - notice.since).days >= 183 for notice in notices)


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
