"""Users, API keys, passwords, tokens and the audit log, over a database in memory."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import functools
import json
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jwt
import pytest
from argon2 import PasswordHasher
from inferno import errors
from inferno.config import load_settings
from inferno.identity import api_keys, audit, passwords, tokens, users
from inferno.identity.authentication import Authenticator, presented_credential
from inferno.identity.callers import PERMISSIONS, ROLES, Caller, Limits
from inferno.identity.local_key import ensure_local_key
from inferno.identity.logins import Logins
from inferno.identity.passwords import hash_password, verify_password
from inferno.store.database import Database
from inferno.store.schema import audit_log
from sqlalchemy import Connection, delete, update


@pytest.fixture
def database(any_database: Database) -> Database:
    return any_database


def user(database: Database, name: str = "ada", **given: Any) -> users.User:
    return database.write_now(lambda c: users.create_user(c, name, **given))


def key(database: Database, owner: users.User, **given: Any) -> str:
    made, _ = database.write_now(lambda c: api_keys.create_key(c, owner, "test", **given))
    return made


def authenticate(authenticator: Authenticator, credential: str | None) -> Caller:
    return asyncio.run(authenticator.authenticate(credential, "127.0.0.1"))


# ---- users ----


def test_a_user_is_found_by_name_and_id(database: Database) -> None:
    made = user(database, email="ada@example.org", role="service")
    assert database.read_now(lambda c: users.get_user(c, "ada")) == made
    assert database.read_now(lambda c: users.get_user(c, made.id)) == made
    assert re.fullmatch(r"usr_[0-9a-f]{24}", made.id)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"username": ""}, "username"),
        ({"username": "-x"}, "username"),
        ({"username": "a b"}, "username"),
        ({"username": "x" * 65}, "username"),
        ({"username": "a\n"}, "username"),
        ({"username": "ok", "role": "root"}, "role"),
        ({"username": "ok", "email": "nowhere"}, "email"),
        ({"username": "taken"}, "username"),
    ],
)
def test_bad_users_are_refused(database: Database, given: dict[str, Any], field: str) -> None:
    user(database, "taken")
    with pytest.raises(errors.InvalidRequest) as caught:
        database.write_now(lambda c: users.create_user(c, **given))
    assert caught.value.field == field


def test_the_last_administrator_stays(database: Database) -> None:
    user(database, "root", role="admin")
    for change in (
        lambda c: users.delete_user(c, "root"),
        lambda c: users.modify_user(c, "root", role="user"),
        lambda c: users.modify_user(c, "root", disabled=True),
    ):
        with pytest.raises(errors.InvalidRequest, match="last administrator"):
            database.write_now(change)
    user(database, "second", role="admin")
    database.write_now(lambda c: users.delete_user(c, "root"))


# ---- keys ----


@pytest.mark.acceptance("A1", "A3")
def test_a_key_is_kept_as_a_digest_only(tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path)
    secret = key(database, user(database))
    assert re.fullmatch(r"inf_[0-9a-f]{12}_[\w-]{32}", secret)
    database.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in kept
    assert secret.split("_", 2)[2].encode() not in kept


def test_a_key_stands_for_its_user(database: Database) -> None:
    made = user(database, role="service")
    caller = authenticate(Authenticator(database), key(database, made))
    assert (caller.user_id, caller.username, caller.role) == (made.id, "ada", "service")
    assert caller.permissions == ROLES["service"]
    assert 0 < caller.salt < 1 << 64


@pytest.mark.acceptance("A3")
def test_scopes_narrow_and_models_and_limits_come_along(database: Database) -> None:
    limits = Limits(requests_per_minute=5)
    made = key(database, user(database), scopes=["inference"], models=["m"], limits=limits)
    caller = authenticate(Authenticator(database), made)
    assert caller.permissions == {"inference"}
    assert caller.limits == limits
    caller.require_model("m")
    with pytest.raises(errors.AuthorizationFailed):
        caller.require_model("other")


@pytest.mark.acceptance("A6")
def test_scopes_cannot_widen(database: Database) -> None:
    guest = user(database, "guest", role="guest")
    with pytest.raises(errors.InvalidRequest, match="models:write") as caught:
        key(database, guest, scopes=["models:write"])
    assert caught.value.field == "permissions"


def test_a_role_that_shrinks_takes_its_keys_along(database: Database) -> None:
    made = user(database, "ops", role="service")
    secret = key(database, made, scopes=["metrics:read", "inference"])
    database.write_now(lambda c: users.modify_user(c, "ops", role="user"))
    assert authenticate(Authenticator(database), secret).permissions == {"inference"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "k", "expires_in_days": 0}, "expires_in"),
        ({"name": "k", "expires_in_days": float("nan")}, "expires_in"),
        ({"name": "k", "expires_in_days": 4000}, "expires_in"),
        ({"name": "k", "models": []}, "models"),
    ],
)
def test_bad_keys_are_refused(database: Database, given: dict[str, Any], field: str) -> None:
    made = user(database)
    with pytest.raises(errors.InvalidRequest) as caught:
        database.write_now(lambda c: api_keys.create_key(c, made, **given))
    assert caught.value.field == field


@pytest.mark.acceptance("A5")
@pytest.mark.parametrize(
    "credential",
    ["", "x", "inf_", "inf__", "inf_abc_def", "ey.a.b", "r" * 1_000_000, "\x00", "ü", "' OR 1=1 --", "\udce9", "a.b.c"],
)
def test_what_is_no_key_is_refused_in_the_same_words(database: Database, credential: str) -> None:
    with pytest.raises(errors.AuthenticationFailed) as caught:
        authenticate(Authenticator(database), credential)
    assert caught.value.message == "The key or token is not valid, has expired or was revoked."


def test_one_wrong_letter_is_a_wrong_key(database: Database) -> None:
    good = key(database, user(database))
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(Authenticator(database), good[:-1] + ("a" if good[-1] != "a" else "b"))


@pytest.mark.acceptance("A5")
def test_expired_and_revoked_keys_and_those_of_disabled_users_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = user(database)
    lasting, short, revoked = (key(database, owner, expires_in_days=days) for days in (None, 1, None))
    database.write_now(lambda c: api_keys.revoke_key(c, str(api_keys.id_of(revoked))))
    assert authenticate(Authenticator(database), short).user_id == owner.id
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86401)
    for ended in (short, revoked):
        with pytest.raises(errors.AuthenticationFailed):
            authenticate(Authenticator(database), ended)
    assert authenticate(Authenticator(database), lasting).user_id == owner.id
    database.write_now(lambda c: users.modify_user(c, owner.id, disabled=True))
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(Authenticator(database), lasting)


def test_a_revoked_key_ends_when_the_cache_does(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    authenticator = Authenticator(database)
    secret = key(database, user(database))
    authenticate(authenticator, secret)
    database.write_now(lambda c: api_keys.revoke_key(c, str(api_keys.id_of(secret))))
    assert authenticate(authenticator, secret).username == "ada"  # known for a moment more
    monkeypatch.setattr(time, "monotonic", lambda: now + 5)
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(authenticator, secret)


@pytest.mark.acceptance("S2")
def test_rotation_keeps_both_for_a_while(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = user(database)
    old = key(database, owner, scopes=["inference"])
    new, row = database.write_now(lambda c: api_keys.rotate_key(c, owner, str(api_keys.id_of(old)), grace_s=3600))
    assert row.scopes == ["inference"]
    for credential in (old, new):
        assert authenticate(Authenticator(database), credential).permissions == {"inference"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    assert authenticate(Authenticator(database), new).username == "ada"
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(Authenticator(database), old)
    with pytest.raises(errors.InvalidRequest):
        database.write_now(lambda c: api_keys.rotate_key(c, owner, str(api_keys.id_of(old)), grace_s=1))


@pytest.mark.acceptance("S2")
@pytest.mark.parametrize("grace_s", [float("nan"), float("inf"), -1, 3650 * 86400 + 1])
def test_an_old_key_has_an_end(database: Database, grace_s: float) -> None:
    owner = user(database)
    key_id = str(api_keys.id_of(key(database, owner)))
    with pytest.raises(errors.InvalidRequest) as caught:
        database.write_now(lambda c: api_keys.rotate_key(c, owner, key_id, grace_s=grace_s))
    assert caught.value.field == "grace"
    assert len(database.read_now(api_keys.list_keys)) == 1


def test_use_is_noted_in_one_go(database: Database) -> None:
    authenticator = Authenticator(database)
    secret = key(database, user(database))
    authenticate(authenticator, secret)
    (before,) = database.read_now(api_keys.list_keys)
    asyncio.run(authenticator.flush())
    (after,) = database.read_now(api_keys.list_keys)
    assert before.last_used is None
    assert after.last_used == pytest.approx(time.time(), abs=60)


def test_unknown_keys_take_bounded_space(database: Database) -> None:
    authenticator = Authenticator(database)

    async def flood() -> None:
        for i in range(5000):
            with pytest.raises(errors.AuthenticationFailed):
                await authenticator.authenticate(f"nobody{i}", "127.0.0.1")

    asyncio.run(flood())
    assert len(authenticator._cache) <= 4096


@pytest.mark.acceptance("A7", "D7")
def test_the_fixed_key_may_everything(database: Database) -> None:
    authenticator = Authenticator(database, fixed_key="your_api_key")
    caller = authenticate(authenticator, "your_api_key")
    assert (caller.permissions, caller.role) == (PERMISSIONS, "admin")
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(authenticator, "your_api_kez")
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(authenticator, None)


def test_without_authentication_everybody_is_anonymous(database: Database) -> None:
    caller = authenticate(Authenticator(database, enabled=False), "any")
    assert (caller.user_id, caller.subject) == ("anonymous", "address:127.0.0.1")


def test_salts_differ_between_users_and_databases(database: Database) -> None:
    """And not between servers of one database, nor after a restart: prompts that were kept are found again."""
    keys = [key(database, user(database, name)) for name in ("ada", "bob")]
    first, second = ([authenticate(Authenticator(database), secret).salt for secret in keys] for _ in range(2))
    assert first == second
    with contextlib.closing(Database("")) as elsewhere:
        others = [Authenticator(elsewhere).salt_of(name) for name in ("ada", "bob")]
    assert len({*first, *others}) == 4


@pytest.mark.acceptance("A2")
@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer  abc "}, "abc"),
        ({"x-api-key": "abc"}, "abc"),
        ({"authorization": "Basic abc", "x-api-key": "def"}, "def"),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer "}, None),
        ({"authorization": "abc"}, None),
        ({"x-api-key": " "}, None),
        ({}, None),
    ],
)
def test_where_credentials_are_presented(headers: dict[str, str], credential: str | None) -> None:
    assert presented_credential(headers) == credential


# ---- the key of this machine ----


@pytest.mark.acceptance("A7")
def test_the_local_key_is_made_once_and_kept(tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path / "new")
    secret, is_new = ensure_local_key(database, tmp_path / "new")
    assert is_new
    assert stat.S_IMODE((tmp_path / "new" / "api-key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert ensure_local_key(database, tmp_path / "new") == (secret, False)
    assert authenticate(Authenticator(database), secret).username == "admin"
    database.close()


def test_a_key_file_without_its_database_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("inf_0a1b2c3d_from-an-earlier-version\n")
    database = Database("", data_dir=tmp_path)
    secret, is_new = ensure_local_key(database, tmp_path)
    assert (secret, is_new) == ("inf_0a1b2c3d_from-an-earlier-version", False)
    assert authenticate(Authenticator(database), secret).role == "admin"
    database.close()


def test_an_empty_key_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("\n")
    database = Database("", data_dir=tmp_path)
    with pytest.raises(errors.ServiceUnavailable, match="empty"):
        ensure_local_key(database, tmp_path)
    database.close()


# ---- passwords ----


def test_passwords() -> None:
    known = hash_password("pass")
    assert known.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert asyncio.run(verify_password("pass", known))
    assert not asyncio.run(verify_password("Pass", known))
    assert not asyncio.run(verify_password("nobody has this password", None))


@pytest.mark.parametrize("password", ["", "x" * 1025, "ü" * 513])
def test_bad_passwords_are_refused_before_work(password: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        hash_password(password)
    assert caught.value.field == "password"


# ---- tokens ----


@pytest.fixture
def logins(database: Database) -> Logins:
    settings = load_settings(environ={"XDG_CONFIG_HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent"})
    return Logins(database, settings.auth)


def login(database: Database, logins: Logins, name: str = "ada") -> tokens.Tokens:
    user(database, name, password_hash=hash_password("pass"))
    _, granted = asyncio.run(logins.login(name, "pass", "127.0.0.1"))
    return granted


@pytest.mark.acceptance("A2", "A4")
def test_a_token_stands_for_its_user(database: Database, logins: Logins) -> None:
    granted = login(database, logins)
    caller = authenticate(Authenticator(database), granted.access)
    assert (caller.username, caller.subject) == ("ada", f"user:{caller.user_id}")
    assert granted.expires_at == pytest.approx(time.time() + 86400, abs=60)


@pytest.mark.acceptance("A5")
def test_wrong_logins_sound_the_same(database: Database, logins: Logins) -> None:
    user(database, password_hash=hash_password("pass"))
    user(database, "keys-only")
    user(database, "off", password_hash=hash_password("pass"))
    database.write_now(lambda c: users.modify_user(c, "off", disabled=True))
    messages = set()
    for name, password in (("ada", "wrong"), ("nobody", "pass"), ("keys-only", "pass"), ("off", "pass")):
        with pytest.raises(errors.AuthenticationFailed) as caught:
            asyncio.run(logins.login(name, password, "127.0.0.1"))
        messages.add(caught.value.message)
    assert len(messages) == 1


@pytest.mark.acceptance("A5")
def test_wrong_logins_take_the_same_work(database: Database, logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash of the same cost, whether or not there is such a user or a password."""
    user(database, password_hash=hash_password("pass"))
    user(database, "keys-only")
    verified: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, known: str | bytes, password: str | bytes) -> Literal[True]:
            verified.append(str(known).rpartition("$")[0].rpartition("$")[0])  # what the hash costs
            return super().verify(known, password)

    monkeypatch.setattr(passwords, "_HASHER", Counting(time_cost=2, memory_cost=19456, parallelism=1))
    for name in ("ada", "nobody", "keys-only"):
        with pytest.raises(errors.AuthenticationFailed):
            asyncio.run(logins.login(name, "wrong", "127.0.0.1"))
    assert verified == ["$argon2id$v=19$m=19456,t=2,p=1"] * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda c: users.modify_user(c, "ada", role="guest"),
        lambda c: users.modify_user(c, "ada", password_hash=hash_password("new")),
        lambda c: users.modify_user(c, "ada", disabled=True),
        lambda c: users.delete_user(c, "ada"),
        tokens.rotate_secret,
    ],
)
def test_sessions_end_with_what_they_rest_on(
    database: Database, logins: Logins, change: Callable[[Connection], object]
) -> None:
    granted = login(database, logins)
    database.write_now(change)
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(Authenticator(database), granted.access)
    with pytest.raises(errors.AuthenticationFailed):
        asyncio.run(logins.refresh(granted.refresh, "127.0.0.1"))


def test_a_user_who_is_enabled_again_logs_in_again(database: Database, logins: Logins) -> None:
    """And nobody else has to."""
    granted, other = login(database, logins), login(database, logins, "bob")
    for disabled in (True, False):
        database.write_now(lambda c, disabled=disabled: users.modify_user(c, "ada", disabled=disabled))
    with pytest.raises(errors.AuthenticationFailed):
        asyncio.run(logins.refresh(granted.refresh, "127.0.0.1"))
    asyncio.run(logins.login("ada", "pass", "127.0.0.1"))
    asyncio.run(logins.refresh(other.refresh, "127.0.0.1"))


def test_passwords_are_hashed_anew_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    monkeypatch.setattr(passwords, "hash_password", lambda _: threads.append(threading.current_thread().name) or "new")
    outdated = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("pass")
    assert asyncio.run(passwords.rehashed("pass", outdated)) == "new"
    assert threads[0].startswith("password")


def test_a_password_that_is_hashed_anew_ends_nothing(database: Database, logins: Logins) -> None:
    first = login(database, logins)
    outdated = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("pass")
    database.write_now(lambda c: users.note_login(c, users.get_user(c, "ada").id, outdated))
    asyncio.run(logins.login("ada", "pass", "127.0.0.1"))
    known = database.read_now(lambda c: users.get_user(c, "ada")).password_hash
    assert known is not None
    assert asyncio.run(passwords.rehashed("pass", known)) is None
    assert authenticate(Authenticator(database), first.access).username == "ada"
    asyncio.run(logins.refresh(first.refresh, "127.0.0.1"))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: users.modify_user(c, "ada", password_hash=hash_password("new")),
        lambda c: users.modify_user(c, "ada", disabled=True),
        lambda c: users.delete_user(c, "ada"),
    ],
)
def test_a_login_that_is_overtaken_is_none(
    database: Database, logins: Logins, monkeypatch: pytest.MonkeyPatch, change: Callable[[Connection], object]
) -> None:
    """The user changes after the password has been found right and before the session begins."""
    user(database, password_hash=hash_password("pass"))

    async def overtaken(password: str, known: str | None) -> bool:
        right = await verify_password(password, known)
        await database.write(change)
        return right

    monkeypatch.setattr("inferno.identity.logins.verify_password", overtaken)
    with pytest.raises(errors.AuthenticationFailed):
        asyncio.run(logins.login("ada", "pass", "127.0.0.1"))


@pytest.mark.acceptance("A8")
def test_logout_ends_the_token_and_its_session(database: Database, logins: Logins) -> None:
    granted = login(database, logins)
    authenticator = Authenticator(database)
    claims = asyncio.run(authenticator.claims(granted.access))
    asyncio.run(logins.logout(claims, "127.0.0.1"))
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(authenticator, granted.access)
    with pytest.raises(errors.AuthenticationFailed):
        asyncio.run(logins.refresh(granted.refresh, "127.0.0.1"))


def test_a_refresh_token_is_good_once_and_twice_ends_the_session(database: Database, logins: Logins) -> None:
    first = login(database, logins)
    _, second = asyncio.run(logins.refresh(first.refresh, "127.0.0.1"))
    assert authenticate(Authenticator(database), second.access).username == "ada"
    for stale in (first.refresh, second.refresh):  # the thief's use ends the owner's as well
        with pytest.raises(errors.AuthenticationFailed):
            asyncio.run(logins.refresh(stale, "127.0.0.1"))
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(Authenticator(database), second.access)
    assert "reused" in {entry.result for entry in database.read_now(audit.entries)}


def forged(database: Database, granted: tokens.Tokens, **changes: Any) -> str:
    keys = database.read_now(tokens.signing_secrets)
    kid, secret = next(iter(keys.items()))
    claims = jwt.decode(granted.access, options={"verify_signature": False})
    header = {"kid": kid, **changes.pop("header", {})}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not ...}
    return jwt.encode(claims, secret, changes.get("alg", "HS256"), headers=header)


@pytest.mark.acceptance("A5")
@pytest.mark.parametrize(
    "changes",
    [
        {"exp": ...},
        {"jti": ...},
        {"exp": 1},
        {"exp": "later"},
        {"nbf": 1 << 40},
        {"iss": "somebody"},
        {"aud": "another"},
        {"aud": ["inferno", "another"]},
        {"ver": 7},
        {"sub": "usr_0"},
        {"sid": "ses_0"},
        {"sid": 5},
        {"header": {"kid": "../../etc/passwd"}},
        {"header": {"kid": "' OR 1=1 --"}},
        {"header": {"crit": ["exp"]}},
        {"header": {"jku": "https://example.org/keys"}},
        {"header": {"jwk": {"kty": "oct", "k": "AA"}}},
        {"header": {"typ": "refresh"}},
    ],
)
def test_other_tokens_are_refused(database: Database, logins: Logins, changes: dict[str, Any]) -> None:
    granted = login(database, logins)
    assert authenticate(Authenticator(database), forged(database, granted)).username == "ada"
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(Authenticator(database), forged(database, granted, **changes))


@pytest.mark.acceptance("A5")
@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "HS512", "RS256"])
def test_other_algorithms_are_refused(database: Database, logins: Logins, alg: str) -> None:
    head, body, signature = login(database, logins).access.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    header["alg"] = alg
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    for end in (signature, ""):
        with pytest.raises(errors.AuthenticationFailed):
            authenticate(Authenticator(database), f"{head}.{body}.{end}")


def test_a_token_signed_with_another_secret_is_refused(database: Database, logins: Logins) -> None:
    with contextlib.closing(Database("")) as other:
        theirs = login(other, Logins(other, logins._settings))
    login(database, logins)
    with pytest.raises(errors.AuthenticationFailed):
        authenticate(Authenticator(database), theirs.access)


# ---- the audit log ----


@pytest.mark.acceptance("S5")
def test_the_chain_finds_changes_and_gaps(database: Database) -> None:
    for i in range(5):
        database.write_now(lambda c, i=i: audit.record(c, "ada", "key.create", target=f"k{i}", note=i))
    broken, count, newest = database.read_now(audit.verify)
    assert (broken, count) == (None, 5)
    assert newest == database.read_now(audit.entries)[0].hash
    database.write_now(lambda c: c.execute(update(audit_log).where(audit_log.c.seq == 3).values(actor="eve")))
    assert database.read_now(audit.verify)[0] == 3
    database.write_now(lambda c: c.execute(delete(audit_log).where(audit_log.c.seq == 2)))
    assert database.read_now(audit.verify)[0] == 2


@pytest.mark.acceptance("S5")
def test_logins_are_audited(database: Database, logins: Logins) -> None:
    login(database, logins)
    with pytest.raises(errors.AuthenticationFailed):
        asyncio.run(logins.login("ada", "wrong", "10.1.2.3"))
    newest, before = database.read_now(audit.entries)
    assert (newest.actor, newest.action, newest.result, newest.address) == ("ada", "login", "refused", "10.1.2.3")
    assert (before.action, before.result) == ("login", "ok")
    assert "wrong" not in newest.details


@pytest.mark.acceptance("S5")
def test_entries_of_many_writers_make_one_chain(database: Database) -> None:
    async def all_at_once() -> None:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            loop = asyncio.get_running_loop()
            write = functools.partial(database.write_now, lambda c: audit.record(c, "ada", "key.create"))
            await asyncio.gather(*(loop.run_in_executor(threads, write) for _ in range(40)))

    asyncio.run(all_at_once())
    assert database.read_now(audit.verify)[:2] == (None, 40)
