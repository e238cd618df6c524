"""`inferno security`: users, API keys, tokens and the audit log, in the database that a server may have open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from sqlalchemy import Connection

from inferno import errors
from inferno.batch import jobs
from inferno.cli import options, output
from inferno.identity import api_keys, audit, tokens, users
from inferno.identity.callers import ROLES, Limits
from inferno.identity.passwords import ADVISED_LENGTH, hash_password
from inferno.store.database import Database
from inferno.webhooks import outbox

_ACTOR = "cli"


@click.group(cls=output.SuggestingGroup)
def security() -> None:
    """Manage users, API keys and tokens; read the audit log."""


@contextlib.contextmanager
def _database(config_file: Path | None, data_dir: Path | None) -> Iterator[Database]:
    settings = options.settings_for(config_file, data_dir=data_dir)
    database = Database(settings.store.url, data_dir=settings.data_dir)
    try:
        yield database
    finally:
        database.close()


def _where(command: Any) -> Any:
    return options.config_option(options.data_dir_option(command))


# ---- users ----


@security.group(cls=output.SuggestingGroup)
def user() -> None:
    """Who there is. Roles: admin, service, user, guest."""


_role = click.option("--role", type=click.Choice(sorted(ROLES)), help="What the user may do.")
_password = click.option("--password", help="For POST /auth/login; asked for when it is `-`.")
_email = click.option("--email", help="For your records.")


@user.command("create")
@click.argument("name")
@_password
@_role
@_email
@_where
@options.json_option
def create_user(
    name: str, password: str | None, role: str | None, email: str | None, as_json: bool, **where: Any
) -> None:
    """Create the user NAME.

    Without a password, one who can only use API keys.
    """
    hashed = _hashed(password)

    def create(connection: Connection) -> users.User:
        created = users.create_user(connection, name, role=role or "user", password_hash=hashed, email=email or "")
        audit.record(connection, _ACTOR, "user.create", target=created.id, username=name, role=created.role)
        return created

    with _database(**where) as database:
        created = database.write_now(create)
    _show_user(created, as_json)


@user.command("list")
@_where
@options.json_option
def list_users(as_json: bool, **where: Any) -> None:
    """List all users."""
    with _database(**where) as database:
        found = database.read_now(users.list_users)
    if as_json:
        output.print_json([_user(each) for each in found])
        return
    columns = ("ID", "NAME", "ROLE", "LOGIN", "CREATED", "LAST LOGIN")
    output.print_table(
        columns,
        [(u.id, u.username, u.role, _login(u), output.when(u.created), output.when(u.last_login)) for u in found],
    )


@user.command("modify")
@click.argument("name")
@_password
@_role
@_email
@click.option("--disable/--enable", "disabled", default=None, help="Refuse, or accept again, all of the user's keys.")
@_where
@options.json_option
def modify_user(
    name: str,
    password: str | None,
    role: str | None,
    email: str | None,
    disabled: bool | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Change the user NAME (or id). A new role or password ends the user's sessions."""
    hashed = _hashed(password)

    def modify(connection: Connection) -> users.User:
        changed = users.modify_user(connection, name, role=role, password_hash=hashed, email=email, disabled=disabled)
        fields = [key for key, value in (("password", hashed), ("role", role), ("email", email)) if value]
        fields += [] if disabled is None else ["disabled" if disabled else "enabled"]
        audit.record(connection, _ACTOR, "user.modify", target=changed.id, changed=fields)
        return changed

    with _database(**where) as database:
        changed = database.write_now(modify)
    _show_user(changed, as_json)


@user.command("delete")
@click.argument("name")
@_where
@options.json_option
def delete_user(name: str, as_json: bool, **where: Any) -> None:
    """Delete the user NAME (or id) with all that is theirs.

    Keys, sessions, batches and webhooks; messages that wait are not sent any more.
    """

    def delete(connection: Connection) -> users.User:
        gone = users.delete_user(connection, name)
        jobs.delete_owned(connection, gone.id)  # before the messages: a batch that ends meanwhile leaves one
        outbox.delete_owned(connection, gone.id)
        audit.record(connection, _ACTOR, "user.delete", target=gone.id, username=gone.username)
        return gone

    with _database(**where) as database:
        gone = database.write_now(delete)
    if as_json:
        output.print_json({"id": gone.id, "username": gone.username, "deleted": True})
    else:
        print(f"{gone.username} has been deleted.")


def _hashed(password: str | None) -> str | None:
    if password is None:
        return None
    if password == "-":  # noqa: S105
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if len(password) < ADVISED_LENGTH:
        output.err.print(f"warning: the password has fewer than {ADVISED_LENGTH} characters", style="yellow")
    return hash_password(password)


def _login(user: users.User) -> str:
    return "disabled" if user.disabled else "password" if user.password_hash else "keys only"


def _user(user: users.User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email,
        "role": user.role,
        "disabled": user.disabled,
        "has_password": user.password_hash is not None,
        "created": user.created,
        "last_login": user.last_login,
    }


def _show_user(user: users.User, as_json: bool) -> None:
    if as_json:
        output.print_json(_user(user))
    else:
        print(f"{user.username} ({user.id}): {user.role}, {_login(user)}.")


# ---- API keys ----


@security.group("api-key", cls=output.SuggestingGroup)
def api_key() -> None:
    """Keys for programs."""


def _create_options(command: Any) -> Any:
    for option in (
        click.option("--user", "owner", required=True, metavar="USER", help="Name or id; made, as `user`, if unknown."),
        click.option("--name", required=True, help="What the key is for."),
        click.option("--permissions", metavar="A,B", help="Narrow the key to these; default: all of the role's."),
        click.option("--models", metavar="A,B", help="Narrow the key to these models."),
        click.option("--expires-in", type=float, metavar="DAYS", help="Default: never."),
        click.option("--requests-per-minute", type=click.IntRange(0), help="Instead of the configured limit; 0: none."),
        click.option("--requests-per-hour", type=click.IntRange(0), help="Likewise."),
        click.option("--tokens-per-minute", type=click.IntRange(0), help="Likewise."),
        click.option("--concurrent-requests", type=click.IntRange(0), help="Likewise."),
    ):
        command = option(command)
    return command


@api_key.command("create")
@_create_options
@_where
@options.json_option
def create_key(
    owner: str,
    name: str,
    permissions: str | None,
    models: str | None,
    expires_in: float | None,
    as_json: bool,
    config_file: Path | None,
    data_dir: Path | None,
    **limits: int | None,
) -> None:
    """Create an API key and print it, this once. It works at once, also in a server that runs."""
    own_limits = Limits(**limits) if any(value is not None for value in limits.values()) else None

    def create(connection: Connection) -> tuple[str, api_keys.ApiKey]:
        user = users.find_user(connection, owner)
        if user is None:
            user = users.create_user(connection, owner)
            audit.record(connection, _ACTOR, "user.create", target=user.id, username=owner, role=user.role)
        key, row = api_keys.create_key(
            connection,
            user,
            name,
            scopes=_listed(permissions),
            models=_listed(models),
            limits=own_limits,
            expires_in_days=expires_in,
        )
        audit.record(connection, _ACTOR, "key.create", target=row.id, user=user.username, name=name)
        return key, row

    with _database(config_file, data_dir) as database:
        _show_new_key(*database.write_now(create), as_json)


api_key.add_command(create_key, "generate")


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [item.strip() for item in text.split(",") if item.strip()]


@api_key.command("list")
@click.option("--user", "owner", metavar="USER", help="Only this user's.")
@_where
@options.json_option
def list_keys(owner: str | None, as_json: bool, **where: Any) -> None:
    """List all keys (never the secrets)."""

    def read(connection: Connection) -> tuple[list[api_keys.ApiKey], dict[str, str]]:
        user_id = users.get_user(connection, owner).id if owner else None
        names = {each.id: each.username for each in users.list_users(connection)}
        return api_keys.list_keys(connection, user_id), names

    with _database(**where) as database:
        keys, names = database.read_now(read)
    if as_json:
        output.print_json([_key(key, names) for key in keys])
        return
    rows = [
        (
            k.id,
            k.name,
            names[k.user_id],
            output.when(k.created),
            output.when(k.last_used),
            "revoked" if k.revoked else output.when(k.expires),
        )
        for k in keys
    ]
    output.print_table(("ID", "NAME", "USER", "CREATED", "LAST USED", "EXPIRES"), rows)


@api_key.command("revoke")
@click.argument("key_id", metavar="ID")
@_where
@options.json_option
def revoke_key(key_id: str, as_json: bool, **where: Any) -> None:
    """End the key ID.

    A server that runs takes it for at most a few seconds more.
    """

    def revoke(connection: Connection) -> None:
        api_keys.revoke_key(connection, key_id)
        audit.record(connection, _ACTOR, "key.revoke", target=key_id)

    with _database(**where) as database:
        database.write_now(revoke)
    if as_json:
        output.print_json({"id": key_id, "revoked": True})
    else:
        print(f"{key_id} has been revoked.")


@api_key.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option("--grace", type=float, default=24.0, metavar="HOURS", help="The old key's last hours (24).")
@_where
@options.json_option
def rotate_key(key_id: str, grace: float, as_json: bool, **where: Any) -> None:
    """Make a key with the same rights as ID.

    The old one goes on for the grace time.
    """

    def rotate(connection: Connection) -> tuple[str, api_keys.ApiKey]:
        old = api_keys.get_key(connection, key_id)
        user = users.get_user(connection, old.user_id)
        key, row = api_keys.rotate_key(connection, user, key_id, grace_s=grace * 3600)
        audit.record(connection, _ACTOR, "key.rotate", target=key_id, new=row.id)
        return key, row

    with _database(**where) as database:
        _show_new_key(*database.write_now(rotate), as_json)


@api_key.command("test")
@click.argument("key")
@_where
@options.json_option
def check_key(key: str, as_json: bool, **where: Any) -> None:
    """Say whether KEY is live and what it may do.

    Exit code 1 says that it is not.
    """

    def read(connection: Connection) -> tuple[api_keys.ApiKey, users.User] | None:
        found = api_keys.find_key(connection, key)
        return None if found is None else (found, users.get_user(connection, found.user_id))

    with _database(**where) as database:
        found = database.read_now(read)
    if found is None or not found[0].is_live(datetime.now(UTC).timestamp()) or found[1].disabled:
        raise errors.AuthenticationFailed("The key is not valid, has expired or was revoked.")
    row, owner = found
    permissions = sorted(ROLES[owner.role] & set(row.scopes if row.scopes is not None else ROLES[owner.role]))
    if as_json:
        output.print_json({**_key(row, {owner.id: owner.username}), "permissions": permissions})
    else:
        print(f"{row.id} ({row.name}) of {owner.username} may: {', '.join(permissions)}.")


def _key(key: api_keys.ApiKey, names: dict[str, str]) -> dict[str, Any]:
    fields = msgspec.to_builtins(key)
    return {name: value for name, value in fields.items() if name != "digest"} | {"user": names.get(key.user_id)}


def _show_new_key(key: str, row: api_keys.ApiKey, as_json: bool) -> None:
    if as_json:
        output.print_json({"id": row.id, "key": key, "expires": row.expires})
    else:
        output.err.print(f"Key {row.id}; it is shown this once:")
        print(key)


# ---- tokens ----


@security.group(cls=output.SuggestingGroup)
def token() -> None:
    """Tokens for sessions."""


@token.command("create")
@click.option("--user", "owner", required=True, metavar="USER", help="Name or id.")
@_where
@options.json_option
def create_token(owner: str, as_json: bool, config_file: Path | None, data_dir: Path | None) -> None:
    """Print a token as POST /auth/login would give it to USER."""
    settings = options.settings_for(config_file, data_dir=data_dir)

    def create(connection: Connection) -> tokens.Tokens:
        user = users.get_user(connection, owner)
        audit.record(connection, _ACTOR, "token.create", target=user.id)
        auth = settings.auth
        return tokens.open_session(connection, user, ttl_s=auth.token_ttl_s, refresh_ttl_s=auth.refresh_ttl_s)

    with _database(config_file, data_dir) as database:
        granted = database.write_now(create)
    if as_json:
        output.print_json({"token": granted.access, "refresh_token": granted.refresh, "expires_at": granted.expires_at})
    else:
        print(granted.access)


@token.command("revoke-all")
@_where
def revoke_tokens(**where: Any) -> None:
    """Sign with a new secret: every token there is ends."""

    def rotate(connection: Connection) -> None:
        tokens.rotate_secret(connection)
        audit.record(connection, _ACTOR, "token.revoke-all")

    with _database(**where) as database:
        database.write_now(rotate)
    print("All tokens have been revoked.")


# ---- the audit log ----


@security.group("audit", cls=output.SuggestingGroup, invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, help="Newest entries to show (50).")
@click.option("--action", metavar="PREFIX", help="Such as `key.` or `login`.")
@_where
@options.json_option
@click.pass_context
def audit_group(ctx: click.Context, /, limit: int, action: str | None, as_json: bool, **where: Any) -> None:
    """Show who did what, newest first."""
    ctx.obj = where
    if ctx.invoked_subcommand is not None:
        return
    with _database(**where) as database:
        found = database.read_now(lambda connection: audit.entries(connection, limit=limit, action=action))
    if as_json:
        output.print_json([msgspec.to_builtins(entry) for entry in found])
        return
    rows = [
        (e.seq, output.when(e.time), e.actor, e.address or "", e.action, e.target or "", e.result, e.details)
        for e in found
    ]
    output.print_table(("#", "TIME (UTC)", "ACTOR", "ADDRESS", "ACTION", "TARGET", "RESULT", "DETAILS"), rows)


@audit_group.command("verify")
@options.json_option
@click.pass_obj
def verify_audit(where: dict[str, Any], as_json: bool) -> None:
    """Check that no entry was changed or removed.

    Exit code 1 says that one was.
    """
    with _database(**where) as database:
        broken, count, newest = database.read_now(audit.verify)
    if broken is not None:
        raise errors.InvalidRequest(f"The audit log is broken at entry {broken} of {count}.")
    if as_json:
        output.print_json({"entries": count, "newest_hash": newest})
    else:
        print(f"{count} entries are unbroken. Newest hash: {newest}")
