"""Who wants to be told of what. Functions of a connection; the caller owns the transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from inferno import errors
from inferno.request import new_id
from inferno.store.schema import webhooks
from inferno.webhooks.signing import check_secret
from inferno.webhooks.target import check_url

Event: TypeAlias = Literal["inference.complete", "batch.complete", "model.loaded"]
EVENTS: tuple[str, ...] = get_args(Event)
#: Webhooks of one user.
MAX_WEBHOOKS = 100
#: How long messages are signed with the old secret as well, after a new one was set.
ROTATION_S = 86400.0


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """`disabled` says why, when nothing is sent any more."""

    id: str
    user_id: str
    url: str
    events: list[str]
    secret: str | None
    previous_secret: str | None
    previous_until: float | None
    created: float
    disabled: str | None

    def secrets(self, now: float) -> list[str]:
        """Those in force, the newest first."""
        old = self.previous_secret if now < (self.previous_until or 0.0) else None
        return [secret for secret in (self.secret, old) if secret]


def create_webhook(
    connection: Connection, *, user_id: str, url: str, events: Sequence[str], secret: str | None
) -> Webhook:
    """Raises InvalidRequest for a URL, event or secret that is none, and for one webhook too many."""
    check_webhook(url, events, secret)
    count = select(func.count()).select_from(webhooks).where(webhooks.c.user_id == user_id)
    if connection.execute(count).scalar_one() >= MAX_WEBHOOKS:
        raise errors.InvalidRequest(f"There may be {MAX_WEBHOOKS} webhooks; delete one first.", field="webhook_url")
    row = {
        "id": new_id("wh"),
        "user_id": user_id,
        "url": url,
        "events": list(dict.fromkeys(events)),
        "secret": secret,
        "created": time.time(),
    }
    connection.execute(insert(webhooks).values(row))
    return get_webhook(connection, str(row["id"]), user_id)


def check_webhook(url: str, events: Sequence[str], secret: str | None) -> None:
    """Without asking the network. Raises InvalidRequest."""
    check_url(url)
    if not events or not set(events) <= set(EVENTS):
        raise errors.InvalidRequest(f"events must be some of {', '.join(EVENTS)}.", field="events")
    if secret is not None:
        check_secret(secret)


def get_webhook(connection: Connection, webhook_id: str, user_id: str | None) -> Webhook:
    """Raises NotFound, also for somebody else's (`user_id` None sees all)."""
    row = connection.execute(select(webhooks).where(webhooks.c.id == webhook_id)).first()
    if row is None or user_id not in (None, row.user_id):
        raise errors.NotFound(f"There is no webhook '{webhook_id}'.")
    return msgspec.convert(row, Webhook, from_attributes=True)


def list_webhooks(connection: Connection, user_id: str | None = None) -> list[Webhook]:
    """In the order of their making; `user_id` None lists everybody's."""
    query = select(webhooks).order_by(webhooks.c.created)
    if user_id is not None:
        query = query.where(webhooks.c.user_id == user_id)
    return [msgspec.convert(row, Webhook, from_attributes=True) for row in connection.execute(query)]


def delete_webhook(connection: Connection, webhook_id: str, user_id: str | None) -> None:
    """Deliveries that wait are not sent any more. Raises NotFound."""
    get_webhook(connection, webhook_id, user_id)
    connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


def rotate_secret(connection: Connection, webhook_id: str, user_id: str | None, secret: str) -> Webhook:
    """Sign with `secret` from now on, and with the old one as well for a day. Raises NotFound, InvalidRequest."""
    check_secret(secret)
    webhook = get_webhook(connection, webhook_id, user_id)
    changes = {
        "secret": secret,
        "previous_secret": webhook.secret,
        "previous_until": time.time() + ROTATION_S,
    }
    connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(changes))
    return get_webhook(connection, webhook_id, user_id)


def disable_webhook(connection: Connection, webhook_id: str, why: str) -> None:
    connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(disabled=why))


def configure_webhooks(connection: Connection, owner: str, tables: Sequence[Mapping[str, Any]]) -> None:
    """Make the webhooks of `owner` those of a configuration. One that stays keeps its id. Raises InvalidRequest."""
    for table in tables:
        check_webhook(table["webhook_url"], table["events"], table.get("secret"))
    wanted = {(table["webhook_url"], tuple(table["events"]), table.get("secret")) for table in tables}
    for webhook in list_webhooks(connection, owner):
        key = (webhook.url, tuple(webhook.events), webhook.secret)
        if key in wanted:
            wanted.remove(key)
        else:
            delete_webhook(connection, webhook.id, owner)
    for url, events, secret in sorted(wanted, key=str):
        create_webhook(connection, user_id=owner, url=url, events=events, secret=secret)
