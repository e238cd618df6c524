"""Logging in over HTTP, and limits as clients see them."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from inferno.identity import api_keys, audit, users
from inferno.identity.passwords import hash_password
from inferno.server.routes import route_table
from inferno.store.database import Database

from tests.fakes import PATIENCE_S, PIECES, PROMPT_TOKENS, FakeEngine
from tests.server.conftest import AUTH, CHAT, PROMPT, Live, make_services

LOGIN = {"username": "user", "password": "pass"}
TOKENS = ("token", "refresh_token")


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


@pytest.mark.acceptance("A4", "G4")
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
        ({"username": "user", "password": "p" * 1025}, "password"),
        ({"username": "user", "password": "p" * 16_000}, "password"),
    ],
)
def test_bad_logins(anybody: httpx.Client, login: dict[str, object], field: str) -> None:
    answer = anybody.post("/auth/login", json=login)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field


PUBLIC_POSTS = [route.path for route in route_table() if (route.method, route.permission) == ("POST", "public")]


@pytest.mark.acceptance("S6", "X3")
@pytest.mark.parametrize("path", PUBLIC_POSTS)
def test_strangers_send_little(anybody: httpx.Client, path: str) -> None:
    """What is larger is neither kept nor parsed."""
    assert anybody.post(path, content=b" " * 16_384).json()["error"]["code"] == "INVALID_REQUEST"
    refused = anybody.post(path, content=b" " * 16_385)
    assert (refused.status_code, refused.json()["error"]["details"]) == (413, {"limit": 16_384})


@pytest.mark.acceptance("L1")
@pytest.mark.parametrize("path", PUBLIC_POSTS)
def test_an_attempt_is_counted_before_it_is_read(serve: Callable[..., Live], engine: FakeEngine, path: str) -> None:
    live = serve(engine, limits__enabled=True, limits__logins_per_minute=1)
    httpx.post(live.url + path, content=b"{")
    with live.connect() as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")


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


@pytest.mark.acceptance("A6")
def test_a_key_for_some_models(anybody: httpx.Client, database: Database) -> None:
    """Whatever is done with another model, it is not done; an administrator's key is no exception."""
    owner = database.write_now(lambda c: users.create_user(c, "root", role="admin"))
    key, _ = database.write_now(lambda c: api_keys.create_key(c, owner, "narrow", models=["org/name"]))
    model = PROMPT["model"]
    for path, body in (
        ("/inference", PROMPT),
        ("/inference/stream", PROMPT),
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", PROMPT),
        ("/embeddings", {"model": model, "input": "x"}),
        ("/batch", {"model": model, "requests": [{"prompt": "x"}]}),
        (f"/models/{model}/load", {}),
        (f"/models/{model}/unload", None),
    ):
        answer = anybody.post(path, json=body, headers=bearer(key))
        assert answer.status_code == 403, path
        assert answer.json()["error"]["details"]["model"] == model
    for verb in ("load", "unload"):
        assert anybody.post(f"/models/org/name/{verb}", headers=bearer(key)).status_code == 200
    results = [(entry.target, entry.result) for entry in database.read_now(lambda c: audit.entries(c, action="model."))]
    assert results == [("org/name", "ok")] * 2 + [(model, "AUTHORIZATION_FAILED")] * 2


@pytest.mark.acceptance("S5")
def test_loading_is_audited(anybody: httpx.Client, database: Database) -> None:
    anybody.post(f"/models/{PROMPT['model']}/load", headers=AUTH)
    anybody.post("/models/missing/load", headers=AUTH)
    refused, done = database.read_now(lambda c: audit.entries(c, action="model."))
    assert (done.actor, done.action, done.target, done.result) == ("operator", "model.load", PROMPT["model"], "ok")
    assert (refused.target, refused.result) == ("missing", "MODEL_NOT_FOUND")


@pytest.mark.acceptance("S5")
def test_the_audit_log_has_no_prompts_and_no_secrets(anybody: httpx.Client, database: Database) -> None:
    """Every secret here, and every text, has the word in it."""
    canary = "canary"
    hashed = hash_password(canary)
    database.write_now(lambda c: users.create_user(c, "ada", password_hash=hashed))
    anybody.post("/auth/login", json={"username": "ada", "password": f"not-{canary}"})
    first = anybody.post("/auth/login", json={"username": "ada", "password": canary}).json()
    second = anybody.post("/auth/refresh", json={"refresh_token": first["refresh_token"]}).json()
    headers = bearer(second["token"])
    anybody.post("/inference", json={**PROMPT, "prompt": canary, "stop": [canary]}, headers=headers)
    url = f"https://93.184.216.34/{canary}?key={canary}"
    batch = {"requests": [{"prompt": canary}], "webhook_url": url, "webhook_secret": canary}
    anybody.post("/batch", json={"model": PROMPT["model"], **batch}, headers=headers).raise_for_status()
    hook = {"webhook_url": url, "events": ["batch.complete"]}
    made = anybody.post("/webhooks", json={**hook, "secret": canary}, headers=headers).json()
    rotated = anybody.post(f"/webhooks/{made['id']}/secret", headers=headers).json()["secret"]
    anybody.delete(f"/webhooks/{made['id']}", headers=headers)
    anybody.post("/models/llama-2-7b/load", json={}, headers=AUTH)
    anybody.post("/models/llama-2-7b/unload", headers=AUTH)
    anybody.post("/auth/logout", headers=headers)
    anybody.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})

    entries = list(reversed(database.read_now(audit.entries)))
    done = [(entry.action, entry.result) for entry in entries]
    assert done == [
        ("login", "refused"),
        ("login", "ok"),
        ("webhook.create", "ok"),
        ("webhook.rotate", "ok"),
        ("webhook.delete", "ok"),
        ("model.load", "ok"),
        ("model.unload", "ok"),
        ("logout", "ok"),
    ]
    assert all(entry.actor and entry.address for entry in entries)
    assert entries[2].target == "https://93.184.216.34"
    text = repr(entries)
    for secret in (canary, AUTH["Authorization"], rotated, *(t[k] for t in (first, second) for k in TOKENS)):
        assert secret.removeprefix("Bearer ") not in text
    assert database.read_now(audit.verify)[:2] == (None, len(entries))


# ---- limits ----


@pytest.fixture
def stopped_clocks(monkeypatch: pytest.MonkeyPatch) -> float:
    """No window moves while a test looks at it. Returns what time it is."""
    now, monotonic = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic)
    return now


@pytest.mark.acceptance("L2", "L3", "S4")
def test_limits_as_a_client_sees_them(
    connect: Callable[..., httpx.Client], engine: FakeEngine, stopped_clocks: float
) -> None:
    client = connect(make_services(engine, limits__enabled=True, limits__requests_per_minute=2))
    answers = [client.get("/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit"] == "2"
        assert stopped_clocks < int(answer.headers["x-ratelimit-reset"]) <= stopped_clocks + 61
        assert 58 <= int(answer.headers["x-ratelimit-reset-after"]) <= 60
    error = answers[2].json()
    assert error["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert error["error"]["retry_after"] == int(answers[2].headers["retry-after"])
    assert f"retry after {error['error']['retry_after']} seconds" in error["error"]["message"]
    assert error["error"]["details"]["limit"] == "requests_per_minute"
    assert {"request_id", "timestamp"} <= error.keys()


@pytest.mark.acceptance("L1", "L2", "S4")
def test_limits_are_on_unless_they_are_lifted(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    services = make_services(engine, limits__enabled=None)
    limits = services.settings.limits
    assert (limits.requests_per_minute, limits.requests_per_hour) == (60, 1000)
    assert (limits.tokens_per_minute, limits.concurrent_requests) == (10_000, 10)
    answers = [connect(services).get("/models") for _ in range(61)]
    assert [answer.status_code for answer in answers] == [200] * 60 + [429]
    assert answers[0].headers["x-ratelimit-limit"] == "60"
    assert answers[0].headers["x-ratelimit-remaining"] == "59"
    lifted = connect(make_services(engine, limits__enabled=False))
    assert {lifted.get("/models").status_code for _ in range(61)} == {200}
    assert "x-ratelimit-limit" not in lifted.get("/models").headers


@pytest.mark.acceptance("L1", "L2", "L3", "S4")
def test_ten_at_once(serve: Callable[..., Live], silent_engine: FakeEngine) -> None:
    live = serve(silent_engine, limits__enabled=None)
    with httpx.Client(base_url=live.url, headers=AUTH, timeout=PATIENCE_S) as client, ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(live.post("/inference", PROMPT))
        running = [silent_engine.next() for _ in range(10)]
        refused = client.get("/models")
        assert refused.status_code == 429
        assert refused.json()["error"]["details"]["limit"] == "concurrent_requests"
        assert (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-remaining"]) == ("10", "0")
        silent_engine.finish(running[0])
        while client.get("/models").status_code == 429:
            pass


@pytest.mark.acceptance("L2", "L3")
@pytest.mark.parametrize(
    ("name", "limit", "resets"),
    [("requests_per_minute", 2, 60), ("requests_per_hour", 2, 3600), ("tokens_per_minute", 2, 60)],
)
def test_a_429_tells_of_the_limit_that_was_hit(
    connect: Callable[..., httpx.Client], engine: FakeEngine, stopped_clocks: float, name: str, limit: int, resets: int
) -> None:
    client = connect(make_services(engine, limits__enabled=True, **{f"limits__{name}": limit}))
    while (answer := client.post("/inference", json=PROMPT)).status_code == 200:
        assert answer.headers["x-ratelimit-limit"] == ("2" if name == "requests_per_minute" else "60")
    assert answer.status_code == 429
    headers, error = answer.headers, answer.json()["error"]
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == (str(limit), "0")
    assert resets - 5 <= int(headers["x-ratelimit-reset-after"]) <= resets
    assert error["details"]["limit"] == name
    assert int(headers["retry-after"]) == error["retry_after"] == error["details"]["retry_after"]


@pytest.mark.acceptance("L2")
@pytest.mark.parametrize(
    ("status", "path", "body"),
    [
        (200, "/inference", PROMPT),
        (200, "/inference/stream", PROMPT),
        (400, "/inference", {}),
        (404, "/models/none/load", {}),
    ],
)
def test_every_limited_answer_has_the_four_headers(
    connect: Callable[..., httpx.Client], engine: FakeEngine, status: int, path: str, body: dict[str, Any]
) -> None:
    answer = connect(make_services(engine, limits__enabled=True)).post(path, json=body)
    assert answer.status_code == status
    told = [answer.headers.get(f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset", "reset-after")]
    assert told[:2] == ["60", "59"]
    assert all(str(value).isdigit() for value in told)


@pytest.mark.acceptance("L1")
def test_who_is_counted_together(connect: Callable[..., httpx.Client], engine: FakeEngine, database: Database) -> None:
    """Each key for itself, also of one user; all tokens of a user; without keys each address."""
    flags: dict[str, Any] = {"limits__enabled": True, "limits__requests_per_minute": 1}
    client = connect(make_services(engine, database=database, **flags), {})
    owner = database.read_now(lambda c: users.get_user(c, "user"))
    keys = [database.write_now(lambda c: api_keys.create_key(c, owner, "k"))[0] for _ in range(2)]
    tokens = [client.post("/auth/login", json=LOGIN).json()["token"] for _ in range(2)]

    def statuses(credentials: list[str]) -> list[int]:
        return [client.get("/models", headers=bearer(credential)).status_code for credential in credentials]

    assert statuses([*keys, *keys]) == [200, 200, 429, 429]
    assert statuses(tokens) == [200, 429]
    open_to_all = connect(make_services(engine, key=None, **flags, server__trusted_proxies=["127.0.0.0/8"]), {})
    hops = ("10.0.0.1", "10.0.0.2", "10.0.0.1")
    seen = [open_to_all.get("/models", headers={"X-Forwarded-For": hop}).status_code for hop in hops]
    assert seen == [200, 200, 429]


@pytest.mark.acceptance("L1", "L4")
def test_what_is_not_counted(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True, limits__requests_per_minute=1))
    for _ in range(3):
        for path in ("/health", "/livez", "/readyz", "/metrics", "/openapi.json"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "x-ratelimit-limit" not in answer.headers
    assert client.get("/models").status_code == 200


@pytest.mark.acceptance("L3", "L4")
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


PROBE = {"model": PROMPT["model"], "prompt": "a", "max_tokens": 1}


def cost_of(client: httpx.Client, work: Callable[[], object]) -> int:
    """Tokens that `work` was charged for."""

    def remaining() -> tuple[int, int]:
        answer = client.post("/v1/completions", json=PROBE)
        return int(answer.headers["x-ratelimit-remaining-tokens"]), answer.json()["usage"]["total_tokens"]

    before, of_the_probe = remaining()
    work()
    return before - remaining()[0] - of_the_probe


@pytest.mark.acceptance("L4")
def test_a_prompt_is_charged_once_whatever_n_is(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True))
    usages: list[int] = []

    def work() -> None:
        answer = client.post("/v1/completions", json={**PROBE, "prompt": ["a", "b"], "n": 3})
        usages.append(answer.json()["usage"]["total_tokens"])

    assert cost_of(client, work) == usages[0]


@pytest.mark.acceptance("L4")
def test_every_choice_is_reserved_for(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True, limits__tokens_per_minute=1000))
    answer = client.post("/v1/completions", json={**PROBE, "prompt": ["a", "b"], "n": 3, "max_tokens": 10})
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(1000 - 2 * 3 * 10)


@pytest.mark.acceptance("L4")
def test_who_hangs_up_pays_for_the_prompt_and_what_was_said(serve: Callable[..., Live]) -> None:
    engine = FakeEngine()
    live = serve(engine, limits__enabled=True)

    def hang_up() -> None:
        engine.next()  # the probe's
        engine.pieces = None
        with live.post("/inference/stream", PROMPT) as connection:
            generation = engine.next()
            engine.say(generation, "The")
            connection.recv(1)
        assert engine.cancelled.get(timeout=PATIENCE_S) == generation.sequence_ids
        engine.pieces = PIECES

    with httpx.Client(base_url=live.url, headers=AUTH) as client:
        assert cost_of(client, hang_up) == PROMPT_TOKENS + 1


def test_openai_headers(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True))
    headers = client.post("/v1/completions", json=PROMPT).headers
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-limit-tokens"] == "10000"
    assert re.fullmatch(r"\d+ms", headers["x-ratelimit-reset-tokens"])


@pytest.mark.acceptance("A5")
def test_wrong_keys_run_into_a_limit(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, limits__enabled=True, limits__requests_per_minute=3), bearer("wrong"))
    assert [client.get("/models").status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    assert client.get("/models", headers=AUTH).status_code == 200


@pytest.fixture
def attempt(connect: Callable[..., httpx.Client], engine: FakeEngine, database: Database) -> Callable[..., int]:
    """The status of a login from an address, where three attempts a minute are allowed."""
    flags = {"limits__enabled": True, "limits__logins_per_minute": 3, "server__trusted_proxies": ["127.0.0.0/8"]}
    client = connect(make_services(engine, database=database, **flags), {})

    def login(address: str, name: str = "user", password: str = "pass") -> int:
        body = {"username": name, "password": password}
        return client.post("/auth/login", json=body, headers={"X-Forwarded-For": address}).status_code

    return login


@pytest.mark.acceptance("A5", "L1")
@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"] * 4, ["::ffff:10.0.0.1"] * 4, [f"2001:db8::{host}" for host in ("1", "2", "3", "f:0:0:4")]],
)
def test_logins_of_one_address_run_into_a_limit(attempt: Callable[..., int], addresses: list[str]) -> None:
    """Whatever the name; of IPv6 a network counts as one."""
    assert [attempt(address, f"nobody{i}") for i, address in enumerate(addresses)] == [401, 401, 401, 429]
    for other in ("10.0.0.2", "::ffff:10.0.0.2", "2001:db8:0:1::1"):
        assert attempt(other) == 200


@pytest.mark.acceptance("A5", "L1")
def test_guesses_from_everywhere_are_slowed_down_and_keep_nobody_out(attempt: Callable[..., int]) -> None:
    strangers = [f"10.0.0.{i}" for i in range(4)]
    assert [attempt(address, password="guess") for address in strangers] == [401] * 4
    assert [attempt(address, password="guess") for address in strangers] == [401, 401, 401, 429]
    assert [attempt(address, password="guess") for address in strangers] == [429] * 4
    assert [attempt("10.0.1.1"), attempt("10.0.1.1"), attempt("10.0.1.1", "nobody")] == [200, 429, 401]


@pytest.mark.acceptance("L1")
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


@pytest.mark.acceptance("L1")
def test_a_clients_own_line_does_not_hide_the_proxys(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    flags = {"limits__enabled": True, "limits__requests_per_minute": 1, "server__trusted_proxies": ["127.0.0.0/8"]}
    client = connect(make_services(engine, key=None, **flags), {})
    lines = [[("X-Forwarded-For", invented), ("X-Forwarded-For", "10.0.0.1")] for invented in ("10.0.0.7", "10.0.0.8")]
    assert [client.get("/models", headers=each).status_code for each in lines] == [200, 429]
