"""Users. Functions of a connection; the caller owns the transaction."""

from __future__ import annotations

import re
import time

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from inferno import errors
from inferno.identity.callers import ROLES
from inferno.request import new_id
from inferno.store.schema import sessions, users

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")


class User(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    username: str
    email: str | None
    role: str
    password_hash: str | None
    disabled: bool
    version: int
    created: float
    last_login: float | None


def create_user(
    connection: Connection, username: str, *, role: str = "user", password_hash: str | None = None, email: str = ""
) -> User:
    """Raises InvalidRequest for a bad name, address or role, and for a name that is taken."""
    if not _NAME.fullmatch(username):
        raise errors.InvalidRequest(
            "username must begin with a letter or digit and have at most 64 of letters, digits and . _ @ -",
            field="username",
        )
    _check(role, email)
    if find_user(connection, username) is not None:
        raise errors.InvalidRequest(f"There is a user {username!r} already.", field="username")
    row = {
        "id": new_id("usr"),
        "username": username,
        "email": email or None,
        "role": role,
        "password_hash": password_hash,
        "disabled": False,
        "version": 0,
        "created": time.time(),
        "last_login": None,
    }
    connection.execute(insert(users).values(row))
    return msgspec.convert(row, User)


def _check(role: str | None, email: str | None) -> None:
    if role is not None and role not in ROLES:
        raise errors.InvalidRequest(f"role must be one of {', '.join(sorted(ROLES))}.", field="role")
    if email and not _EMAIL.fullmatch(email):
        raise errors.InvalidRequest("email must be an address such as a@b.example.", field="email")


def find_user(connection: Connection, name: str) -> User | None:
    """By id or by name."""
    row = connection.execute(select(users).where((users.c.username == name) | (users.c.id == name))).first()
    return _user(row)


def get_user(connection: Connection, name: str) -> User:
    """By id or by name. Raises NotFound."""
    user = find_user(connection, name)
    if user is None:
        raise errors.NotFound(f"There is no user {name!r}.")
    return user


def list_users(connection: Connection) -> list[User]:
    rows = connection.execute(select(users).order_by(users.c.created))
    return [user for user in map(_user, rows) if user is not None]


def modify_user(
    connection: Connection,
    name: str,
    *,
    role: str | None = None,
    password_hash: str | None = None,
    email: str | None = None,
    disabled: bool | None = None,
) -> User:
    """What is None stays. A new role or password and disabling end the user's sessions. Raises NotFound,
    InvalidRequest; also when nobody would be left to administer."""
    user = get_user(connection, name)
    _check(role, email)
    if user.role == "admin" and (disabled or role not in (None, "admin")):
        _keep_an_admin(connection, user)
    given = {"role": role, "password_hash": password_hash, "email": email, "disabled": disabled}
    changes: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    if changes.keys() & {"role", "password_hash", "disabled"}:
        changes["version"] = user.version + 1
        _end_sessions(connection, user.id)
    if changes:
        connection.execute(update(users).where(users.c.id == user.id).values(changes))
    return get_user(connection, user.id)


def delete_user(connection: Connection, name: str) -> User:
    """With all keys and sessions; batches and webhooks are for the caller to delete. Raises NotFound; InvalidRequest
    for the last administrator."""
    user = get_user(connection, name)
    if user.role == "admin":
        _keep_an_admin(connection, user)
    connection.execute(delete(users).where(users.c.id == user.id))
    return user


def _end_sessions(connection: Connection, user_id: str) -> None:
    """The version ends tokens; what renews them is with the sessions."""
    live = (sessions.c.user_id == user_id) & sessions.c.revoked.is_(None)
    connection.execute(update(sessions).where(live).values(revoked=time.time()))


def note_login(connection: Connection, user_id: str, new_hash: str | None = None) -> None:
    """`new_hash` is of the same password, made as it is today: sessions go on."""
    changes: dict[str, object] = {"last_login": time.time()}
    if new_hash is not None:
        changes["password_hash"] = new_hash
    connection.execute(update(users).where(users.c.id == user_id).values(changes))


def _keep_an_admin(connection: Connection, but: User) -> None:
    others = select(func.count()).where(users.c.role == "admin", users.c.disabled.is_(False), users.c.id != but.id)
    if not connection.execute(others).scalar():
        raise errors.InvalidRequest(f"{but.username!r} is the last administrator.", field="username")


def _user(row: Row[tuple[object, ...]] | None) -> User | None:
    return None if row is None else msgspec.convert(row, User, from_attributes=True)
