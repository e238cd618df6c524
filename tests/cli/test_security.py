"""Users, keys, tokens and the audit log from the command line."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from inferno.cli.security import security

#: A byte that is no character, as Python hands it over.
NOT_UTF8 = "password\udcff"
Run = Callable[..., subprocess.CompletedProcess[str]]


def parsed(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.acceptance("A3")
def test_the_line_of_the_api_document(inferno: Run) -> None:
    result = inferno("security", "api-key", "create", "--user", "USER_ID", "--name", "My API Key")
    assert result.returncode == 0
    key = result.stdout.strip()
    assert re.fullmatch(r"inf_[0-9a-f]{12}_[\w-]{32}", key)
    checked = parsed(inferno("security", "api-key", "test", key, "--json"))
    assert (checked["name"], checked["user"]) == ("My API Key", "USER_ID")
    assert "inference" in checked["permissions"]
    assert parsed(inferno("security", "user", "list", "--json"))[0]["role"] == "user"


@pytest.mark.acceptance("A3", "S2")
def test_a_key_from_its_making_to_its_end(inferno: Run) -> None:
    made = parsed(
        inferno(
            *("security", "api-key", "generate", "--user", "ada", "--name", "k", "--permissions", "inference,batch"),
            *("--expires-in", "7", "--requests-per-minute", "5", "--json"),
        )
    )
    (row,) = parsed(inferno("security", "api-key", "list", "--json"))
    assert (row["id"], row["user"], row["scopes"]) == (made["id"], "ada", ["batch", "inference"])
    assert row["limits"]["requests_per_minute"] == 5
    assert row["expires"] == pytest.approx(row["created"] + 7 * 86400)
    assert {"digest", "key"}.isdisjoint(row)
    for grace in ("nan", "-1"):
        assert inferno("security", "api-key", "rotate", made["id"], "--grace", grace).returncode == 1
    new = parsed(inferno("security", "api-key", "rotate", made["id"], "--grace", "1", "--json"))
    for key in (made["key"], new["key"]):
        assert parsed(inferno("security", "api-key", "test", key, "--json"))["permissions"] == ["batch", "inference"]
    assert inferno("security", "api-key", "revoke", made["id"]).returncode == 0
    ended = inferno("security", "api-key", "test", made["key"])
    assert ended.returncode == 1
    assert made["key"] not in ended.stderr


@pytest.mark.acceptance("A3", "S2")
def test_the_list_says_of_each_key_what_there_is_to_know(inferno: Run, tmp_path: Path) -> None:
    create = ("security", "api-key", "create", "--json", "--user", "ada", "--name", "a long name " * 5)
    key_id = parsed(inferno(*create, "--expires-in", "7"))["id"]
    with sqlite3.connect(tmp_path / "data" / "inferno.db") as raw:
        raw.execute("UPDATE api_keys SET created = 0, last_used = 86400, expires = 4102444800")
    raw.close()
    narrow = inferno("security", "api-key", "list").stdout
    assert key_id in narrow.splitlines()[1].split()  # whole: it is what the other commands take
    wide = inferno("security", "api-key", "list", columns=200).stdout
    head, row = (re.split("  +", line.strip()) for line in wide.splitlines())
    assert head == ["ID", "NAME", "USER", "CREATED", "LAST USED", "EXPIRES"]
    times = ["1970-01-01 00:00:00", "1970-01-02 00:00:00", "2100-01-01 00:00:00"]
    assert row == [key_id, "a long name " * 4 + "a long name", "ada", *times]
    assert inferno("security", "api-key", "revoke", key_id).returncode == 0
    assert inferno("security", "api-key", "list").stdout.splitlines()[1].split()[-1] == "revoked"


@pytest.mark.parametrize(
    ("group", "verbs"),
    [
        ((), {"user", "api-key", "token", "audit"}),
        (("user",), {"create", "list", "modify", "delete"}),
        (("api-key",), {"create", "generate", "list", "revoke", "rotate", "test"}),
        (("token",), {"create", "revoke-all"}),
        (("audit",), {"verify"}),
    ],
)
def test_the_verbs(group: tuple[str, ...], verbs: set[str]) -> None:
    command: click.Command = security
    for name in group:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert isinstance(command, click.Group)
    assert command.commands.keys() == verbs


@pytest.mark.acceptance("A4")
def test_users(inferno: Run) -> None:
    result = inferno("security", "user", "create", "user", "--password", "pass", "--role", "user")
    assert result.returncode == 0
    assert "fewer than 8" in result.stderr  # a warning, no refusal
    assert inferno("security", "user", "create", "user").returncode == 1
    changed = parsed(inferno("security", "user", "modify", "user", "--role", "guest", "--disable", "--json"))
    assert (changed["role"], changed["disabled"], changed["has_password"]) == ("guest", True, True)
    assert inferno("security", "user", "delete", "user").returncode == 0
    assert inferno("security", "user", "delete", "user").returncode == 3
    assert inferno("security", "user", "create", "x", "--role", "root").returncode == 2


@pytest.mark.acceptance("A2")
def test_a_token(inferno: Run) -> None:
    inferno("security", "user", "create", "ada")
    token = inferno("security", "token", "create", "--user", "ada").stdout.strip()
    assert token.count(".") == 2
    assert inferno("security", "token", "revoke-all").returncode == 0
    assert inferno("security", "token", "create", "--user", "nobody").returncode == 3


@pytest.mark.acceptance("S5")
def test_all_of_it_is_audited_and_the_chain_holds(inferno: Run, tmp_path: Path) -> None:
    key_id = parsed(inferno("security", "api-key", "create", "--user", "ada", "--name", "k", "--json"))["id"]
    inferno("security", "api-key", "revoke", key_id)
    inferno("security", "user", "modify", "ada", "--password", "secret-word")
    entries = parsed(inferno("security", "audit", "--json"))
    actions = [entry["action"] for entry in reversed(entries)]
    assert actions == ["user.create", "key.create", "key.revoke", "user.modify"]
    assert "secret-word" not in json.dumps(entries)
    assert parsed(inferno("security", "audit", "--action", "key.", "--limit", "1", "--json"))[0]["target"] == key_id
    assert "4 entries are unbroken" in inferno("security", "audit", "verify").stdout
    with sqlite3.connect(tmp_path / "data" / "inferno.db") as raw:
        raw.execute("UPDATE audit_log SET actor = 'nobody' WHERE seq = 2")
    raw.close()
    broken = inferno("security", "audit", "verify")
    assert broken.returncode == 1
    assert "entry 2" in broken.stderr


def test_programs_are_answered(inferno: Run) -> None:
    key_id = parsed(inferno("security", "api-key", "create", "--user", "ada", "--name", "k", "--json"))["id"]
    assert parsed(inferno("security", "api-key", "revoke", key_id, "--json")) == {"id": key_id, "revoked": True}
    gone = parsed(inferno("security", "user", "delete", "ada", "--json"))
    assert (gone["username"], gone["deleted"]) == ("ada", True)
    verified = parsed(inferno("security", "audit", "verify", "--json"))
    assert verified["entries"] == 4
    assert verified["newest_hash"] == parsed(inferno("security", "audit", "--limit", "1", "--json"))[0]["hash"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("api-key", "create", "--user", "a b", "--name", "k"), 1),
        (("api-key", "create", "--user", "ada", "--name", "k", "--permissions", "models:write"), 1),
        (("api-key", "create", "--user", "ada", "--name", "k", "--expires-in", "-1"), 1),
        (("api-key", "create", "--user", "ada"), 2),
        (("api-key", "revoke", "nothing"), 3),
        (("api-key", "rotate", "nothing"), 3),
        (("user", "modify", "nobody"), 3),
        (("user", "create", "ada", "--password", "x" * 2000), 1),
        (("api-keys",), 2),
        (("user", "modify", NOT_UTF8, "--role", "user"), 1),
        (("user", "delete", NOT_UTF8), 1),
        (("user", "create", "ada", "--password", NOT_UTF8), 1),
        (("user", "create", "ada", "--email", f"{NOT_UTF8}@b"), 1),
        (("api-key", "revoke", NOT_UTF8), 1),
        (("api-key", "rotate", NOT_UTF8), 1),
        (("api-key", "create", "--user", NOT_UTF8, "--name", "k"), 1),
        (("token", "create", "--user", NOT_UTF8), 1),
        (("audit", "--action", NOT_UTF8), 1),
    ],
)
def test_mistakes_have_an_exit_code_and_one_line(inferno: Run, arguments: tuple[str, ...], code: int) -> None:
    result = inferno("security", *arguments)
    assert result.returncode == code
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_a_directory_may_have_any_name(inferno: Run, tmp_path: Path) -> None:
    assert parsed(inferno("security", "user", "list", "--json", "--data-dir", str(tmp_path / NOT_UTF8))) == []
