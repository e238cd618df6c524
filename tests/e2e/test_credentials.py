"""Keys, logins and the audit log of a running server, managed from the command line beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It has no models: nothing here needs one."""
    running = Server(tmp_path_factory.mktemp("data"), key=None)
    yield running
    assert running.stop() == 0


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def status(server: Server, credential: str) -> int:
    return httpx.get(f"{server.url}/models", headers=bearer(credential)).status_code


def create_key(server: Server, *more: str) -> dict[str, str]:
    """Id and key of a new key of somebody's."""
    made = server.command("security", "api-key", "create", "--user", "ada", "--name", "k", "--json", *more)
    return dict(json.loads(made))


def until_refused(server: Server, credential: str) -> None:
    """A key that has ended is taken for a few seconds more."""
    while status(server, credential) != 401:
        pass
    refused = httpx.get(f"{server.url}/models", headers=bearer(credential))
    assert refused.json()["error"]["code"] == "AUTHENTICATION_FAILED"
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.acceptance("A1", "A2", "A3", "A6")
def test_a_key_works_at_once(server: Server) -> None:
    """Made with the documented line, for a user whom nobody has heard of."""
    key = server.command("security", "api-key", "create", "--user", "USER_ID", "--name", "My API Key").strip()
    assert status(server, key) == 200
    assert httpx.get(f"{server.url}/models", headers={"X-API-Key": key}).status_code == 200
    refused = httpx.post(f"{server.url}/models/any/load", headers=bearer(key))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "AUTHORIZATION_FAILED")
    assert httpx.get(f"{server.url}/models?api_key={key}").status_code == 401


@pytest.mark.acceptance("A3", "A5", "S2")
def test_keys_end(server: Server) -> None:
    """By themselves, when they are replaced, and when they are revoked."""
    old, bad = (create_key(server, "--expires-in", "30") for _ in range(2))
    assert (status(server, old["key"]), status(server, bad["key"])) == (200, 200)
    new = json.loads(server.command("security", "api-key", "rotate", old["id"], "--grace", "0", "--json"))
    server.command("security", "api-key", "revoke", bad["id"])
    short = create_key(server, "--expires-in", "0.00001")  # less than a second
    for ended in (short, old, bad):
        until_refused(server, ended["key"])
    assert status(server, new["key"]) == 200


@pytest.mark.acceptance("A2", "A4", "A8")
def test_logging_in_and_out(server: Server) -> None:
    server.command("security", "user", "create", "user", "--password", "pass", "--role", "user")
    login = httpx.post(f"{server.url}/auth/login", json={"username": "user", "password": "pass"})
    token = login.json()["token"]
    assert status(server, token) == 200
    assert httpx.post(f"{server.url}/auth/logout", headers=bearer(token)).status_code == 200
    assert status(server, token) == 401


@pytest.mark.acceptance("S5")
def test_all_of_it_is_on_record(server: Server) -> None:
    key = create_key(server)
    server.command("security", "user", "create", "eve", "--password", "pass-of-eve")
    token = httpx.post(f"{server.url}/auth/login", json={"username": "eve", "password": "pass-of-eve"}).json()["token"]
    text = server.command("security", "audit", "--limit", "3", "--json")
    login, created, made = json.loads(text)
    assert (login["actor"], login["action"], login["address"], login["result"]) == ("eve", "login", "127.0.0.1", "ok")
    assert (created["actor"], created["action"]) == ("cli", "user.create")
    assert (made["action"], made["target"]) == ("key.create", key["id"])
    assert not [secret for secret in ("pass-of-eve", token, key["key"]) if secret in text]
    assert "entries are unbroken" in server.command("security", "audit", "verify")


@pytest.mark.acceptance("A7")
def test_the_first_start_makes_a_key_and_shows_it_once(tmp_path: Path) -> None:
    first = Server(tmp_path, key=None)
    try:
        (shown,) = re.findall(r"inf_[0-9a-f]+_[\w-]+", first.log)
        file = tmp_path / "api-key"
        assert file.read_text().strip() == shown
        assert file.stat().st_mode & 0o777 == 0o600
        (user,) = json.loads(first.command("security", "user", "list", "--json"))
        assert (user["username"], user["role"]) == ("admin", "admin")
        assert httpx.post(f"{first.url}/models/none/load", headers=bearer(shown)).status_code == 404  # it may
        assert "inferno_" in first.command("metrics", "--url", first.url)  # the command line finds the key
    finally:
        assert first.stop() == 0
    second = Server(tmp_path, key=None)
    try:
        assert status(second, shown) == 200
        assert shown not in second.log + second.ready_line + second.curl_line
    finally:
        assert second.stop() == 0
