"""Logging in over HTTP, and limits as clients see them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable

import httpx
import pytest
from inferno.identity import api_keys, audit, users
from inferno.identity.passwords import hash_password
from inferno.store.database import Database

from tests.fakes import FakeEngine
from tests.server.conftest import AUTH, PROMPT, make_services

LOGIN = {"username": "user", "password": "pass"}


@pytest.fixture
def database() -> Database:
    database = Database("")
    hashed = hash_password("pass")
    database.write_now(lambda c: users.create_user(c, "user", password_hash=hashed))
    return database


@pytest.fixture
def anybody(connect: Callable[..., httpx.Client], engine: FakeEngine, database: Database) -> httpx.Client:
    """A client without credentials."""
    return connect(make_services(engine, database=database), {})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.acceptance("A2", "A4")
def test_login_gives_a_token_that_works(anybody: httpx.Client) -> None:
    answer = anybody.post("/auth/login", json=LOGIN)
    assert answer.status_code == 200
    body = answer.json()
    assert body["token"] == body["access_token"]
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == pytest.approx(86400, abs=5)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["expires_at"])
    assert datetime.datetime.fromisoformat(body["expires_at"]) > datetime.datetime.now(datetime.UTC)
    assert body["user"].keys() == {"id", "username", "email", "role", "last_login"}
    assert (body["user"]["username"], body["user"]["role"]) == ("user", "user")
    assert anybody.post("/inference", json=PROMPT, headers=bearer(body["token"])).status_code == 200


@pytest.mark.acceptance("A5")
@pytest.mark.parametrize("login", [{**LOGIN, "password": "Pass"}, {**LOGIN, "username": "nobody"}])
def test_wrong_logins(anybody: httpx.Client, login: dict[str, str]) -> None:
    answer = anybody.post("/auth/login", json=login)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "AUTHENTICATION_FAILED"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "pass" not in answer.text.lower().replace("password", "")


@pytest.mark.parametrize(
    ("login", "field"),
    [
        ({}, "username"),
        ({"username": "user"}, "password"),
        ({"username": 5, "password": "pass"}, "username"),
        ({"username": "user", "password": ["pass"]}, "password"),
        ({"username": "", "password": "pass"}, "username"),
        ({"username": "u" * 257, "password": "pass"}, "username"),
        ({"username": "user", "password": ""}, "password"),
        ({"username": "user", "password": "p" * 1_000_000}, "password"),
    ],
)
def test_bad_logins(anybody: httpx.Client, login: dict[str, object], field: str) -> None:
    answer = anybody.post("/auth/login", json=login)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field


@pytest.mark.acceptance("A8")
def test_logout_and_refresh(anybody: httpx.Client) -> None:
    first = anybody.post("/auth/login", json=LOGIN).json()
    second = anybody.post("/auth/refresh", json={"refresh_token": first["refresh_token"]}).json()
    assert second["token"] != first["token"]
    headers = bearer(second["token"])
    assert anybody.get("/models", headers=headers).status_code == 200
    assert anybody.post("/auth/logout", headers=headers).json() == {"status": "logged_out"}
    assert anybody.get("/models", headers=headers).status_code == 401
    assert anybody.post("/auth/refresh", json={"refresh_token": second["refresh_token"]}).status_code == 401


def test_a_key_cannot_be_logged_out(anybody: httpx.Client) -> None:
    answer = anybody.post("/auth/logout", headers=AUTH)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "Authorization"


def test_a_key_for_some_models(anybody: httpx.Client, database: Database) -> None:
    owner = database.read_now(lambda c: users.get_user(c, "user"))
    key, _ = database.write_now(lambda c: api_keys.create_key(c, owner, "narrow", models=["other"]))
    for path, body in (("/inference", PROMPT), ("/embeddings", {"model": PROMPT["model"], "input": "x"})):
        answer = anybody.post(path, json=body, headers=bearer(key))
        assert answer.status_code == 403
        assert answer.json()["error"]["details"]["model"] == PROMPT["model"]


@pytest.mark.acceptance("S5")
def test_loading_is_audited(anybody: httpx.Client, database: Database) -> None:
    anybody.post(f"/models/{PROMPT['model']}/load", headers=AUTH)
    anybody.post("/models/missing/load", headers=AUTH)
    refused, done = database.read_now(lambda c: audit.entries(c, action="model."))
    assert (done.actor, done.action, done.target, done.result) == ("operator", "model.load", PROMPT["model"], "ok")
    assert (refused.target, refused.result) == ("missing", "MODEL_NOT_FOUND")


# ---- limits ----


@pytest.mark.acceptance("L2", "L3", "S4")
def test_limits_as_a_client_sees_them(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True, limits__requests_per_minute=2))
    answers = [client.get("/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit"] == "2"
        now = datetime.datetime.now(datetime.UTC).timestamp()
        assert now < int(answer.headers["x-ratelimit-reset"]) <= now + 61
        assert 58 <= int(answer.headers["x-ratelimit-reset-after"]) <= 60
    error = answers[2].json()
    assert error["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert error["error"]["retry_after"] == int(answers[2].headers["retry-after"])
    assert f"retry after {error['error']['retry_after']} seconds" in error["error"]["message"]
    assert error["error"]["details"]["limit"] == "requests_per_minute"
    assert {"request_id", "timestamp"} <= error.keys()


@pytest.mark.acceptance("L1")
def test_what_is_not_counted(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True, limits__requests_per_minute=1))
    for _ in range(3):
        for path in ("/health", "/livez", "/readyz", "/metrics", "/openapi.json"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "x-ratelimit-limit" not in answer.headers
    assert client.get("/models").status_code == 200


@pytest.mark.acceptance("L4")
def test_tokens_are_charged_and_run_out(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True, limits__tokens_per_minute=5))
    assert client.post("/inference", json=PROMPT).status_code == 200
    answer = client.post(
        "/v1/chat/completions", json={"model": PROMPT["model"], "messages": [{"role": "user", "content": "x"}]}
    )
    assert answer.status_code == 429
    assert answer.json()["error"]["details"]["limit"] == "tokens_per_minute"
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert client.get("/models").status_code == 200


def test_openai_headers(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True))
    headers = client.post("/v1/completions", json=PROMPT).headers
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-limit-tokens"] == "10000"
    assert re.fullmatch(r"\d+ms", headers["x-ratelimit-reset-tokens"])


def test_wrong_keys_run_into_a_limit(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True, limits__requests_per_minute=3), bearer("wrong"))
    assert [client.get("/models").status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    assert client.get("/models", headers=AUTH).status_code == 200


@pytest.mark.acceptance("A5")
def test_logins_run_into_a_limit(connect: Callable[..., httpx.Client], engine: FakeEngine, database: Database) -> None:
    services = make_services(engine, database=database, limits__enabled=True, limits__logins_per_minute=2)
    client = connect(services, {})
    assert [client.post("/auth/login", json=LOGIN).status_code for _ in range(3)] == [200, 200, 429]


def test_forwarded_addresses_count_only_from_trusted_proxies(
    connect: Callable[..., httpx.Client], engine: FakeEngine
) -> None:
    flags = {"limits__enabled": True, "limits__requests_per_minute": 1}
    trusting = make_services(engine, key=None, **flags, server__trusted_proxies=["127.0.0.0/8"])
    for services, statuses in (
        (trusting, [200, 200, 429]),
        (make_services(engine, key=None, **flags), [200, 429, 429]),
    ):
        client = connect(services, {})
        sent = ("10.0.0.1", "10.0.0.1, 10.0.0.2", "10.0.0.9, 10.0.0.2")
        assert [client.get("/models", headers={"X-Forwarded-For": hop}).status_code for hop in sent] == statuses
