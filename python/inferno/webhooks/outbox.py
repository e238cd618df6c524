"""The transactional outbox: a message stands in the database as soon as what it tells of does, and is sent from there
at least once. Functions of a connection; the caller owns the transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, not_, or_, select, update

from inferno import errors
from inferno.request import new_id
from inferno.store.schema import deliveries, webhooks
from inferno.webhooks.endpoints import Webhook, disable_webhook, get_webhook
from inferno.webhooks.outcome import Outcome
from inferno.webhooks.schedule import after

#: The owner of webhooks of the configuration file: those are told of what everybody does.
OPERATOR = "config"
State: TypeAlias = Literal["pending", "delivered", "dead"]
STATES: tuple[State, ...] = get_args(State)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver. `webhook_id` None: the address that a batch brought along, with its secret."""

    id: str
    webhook_id: str | None
    user_id: str
    url: str
    secret: str | None
    event: str
    payload: Mapping[str, Any]
    state: State
    attempts: int
    next_attempt: float | None
    created: float
    finished: float | None
    last_status: int | None
    last_error: str | None


def announce(connection: Connection, event: str, data: Mapping[str, Any], user_id: str | None) -> int:
    """A message for every webhook that wants `event`: of one user, or of all (`user_id` None). Returns how many."""
    found = connection.execute(select(webhooks).where(webhooks.c.disabled.is_(None)))
    wanting = [row for row in found if event in row.events and concerns(row.user_id, user_id)]
    for row in wanting:
        _put(connection, event, data, user_id=row.user_id, url=row.url, webhook_id=row.id)
    return len(wanting)


def concerns(owner: str, user_id: str | None) -> bool:
    """Whether a webhook of `owner` is told of what `user_id` did (None: what concerns all)."""
    return user_id is None or owner in (user_id, OPERATOR)


def address(
    connection: Connection, event: str, data: Mapping[str, Any], *, user_id: str, url: str, secret: str | None
) -> None:
    """A message for an address that is no webhook."""
    _put(connection, event, data, user_id=user_id, url=url, secret=secret)


def _put(
    connection: Connection,
    event: str,
    data: Mapping[str, Any],
    *,
    user_id: str,
    url: str,
    webhook_id: str | None = None,
    secret: str | None = None,
) -> str:
    now = time.time()
    row = {
        "id": new_id("msg"),
        "webhook_id": webhook_id,
        "user_id": user_id,
        "url": url,
        "secret": secret,
        "event": event,
        "payload": dict(data),
        "state": "pending",
        "attempts": 0,
        "next_attempt": now,
        "created": now,
    }
    connection.execute(insert(deliveries).values(row))
    return str(row["id"])


def send_test(connection: Connection, webhook: Webhook, data: Mapping[str, Any]) -> str:
    """A message for one webhook, whatever it wants; returns its id."""
    return _put(connection, webhook.events[0], data, user_id=webhook.user_id, url=webhook.url, webhook_id=webhook.id)


def due(connection: Connection, now: float, limit: int, without: Collection[str] = ()) -> list[Delivery]:
    """What is to be sent, the longest waiting first; nothing for origins in `without`."""
    query = (
        select(deliveries)
        .where(deliveries.c.state == "pending", deliveries.c.next_attempt <= now, *_elsewhere(without))
        .order_by(deliveries.c.next_attempt)
        .limit(limit)
    )
    return [msgspec.convert(row, Delivery, from_attributes=True) for row in connection.execute(query)]


def next_due(connection: Connection, without: Collection[str] = ()) -> float | None:
    """When the first message is to be sent, those for origins in `without` aside; None when there is none."""
    query = select(deliveries.c.next_attempt).where(deliveries.c.state == "pending", *_elsewhere(without))
    return connection.execute(query.order_by(deliveries.c.next_attempt).limit(1)).scalar()


def _elsewhere(origins: Collection[str]) -> list[ColumnElement[bool]]:
    """Conditions: the URL begins with none of them, which are in lower case."""
    url = func.lower(deliveries.c.url)
    there = [or_(url == origin, *(url.startswith(origin + end, autoescape=True) for end in "/?")) for origin in origins]
    return [not_(condition) for condition in there]


def begin(connection: Connection, delivery: Delivery, now: float, hold_s: float) -> list[str] | None:
    """Take a delivery up for `hold_s` seconds, after which another attempt may be made; the secrets to sign with, or
    None when it is no longer to be sent: delivered elsewhere, its webhook deleted or disabled."""
    taken = update(deliveries).where(
        deliveries.c.id == delivery.id,
        deliveries.c.state == "pending",
        deliveries.c.attempts == delivery.attempts,
    )
    if not connection.execute(taken.values(attempts=delivery.attempts + 1, next_attempt=now + hold_s)).rowcount:
        return None
    if delivery.webhook_id is None:
        return [delivery.secret] if delivery.secret else []
    try:
        webhook = get_webhook(connection, delivery.webhook_id, None)
    except errors.NotFound:
        webhook = None
    if webhook is None or webhook.disabled:
        _finish(connection, delivery.id, "dead", last_error="webhook_gone")
        return None
    return webhook.secrets(now)


def settle(
    connection: Connection, delivery: Delivery, outcome: Outcome, now: float, draw: Callable[[], float]
) -> State:
    """Write down what an attempt came to."""
    following = after(outcome, attempts=delivery.attempts + 1, age_s=now - delivery.created, draw=draw)
    seen = {"last_status": outcome.status, "last_error": outcome.error}
    if following.action == "retry":
        changes = {**seen, "next_attempt": now + following.delay_s}
        connection.execute(update(deliveries).where(_pending(delivery.id)).values(changes))
        return "pending"
    if following.action == "disable" and delivery.webhook_id is not None:
        disable_webhook(connection, delivery.webhook_id, "its receiver answered 410 Gone")
    state: State = "delivered" if following.action == "delivered" else "dead"
    _finish(connection, delivery.id, state, **seen)
    return state


def _pending(delivery_id: str) -> Any:
    return and_(deliveries.c.id == delivery_id, deliveries.c.state == "pending")


def _finish(connection: Connection, delivery_id: str, state: State, **seen: Any) -> None:
    changes = {"state": state, "finished": time.time(), "next_attempt": None, **seen}
    connection.execute(update(deliveries).where(_pending(delivery_id)).values(changes))


def history(connection: Connection, user_id: str | None, *, webhook_id: str | None, limit: int) -> list[Delivery]:
    """The newest first."""
    query = select(deliveries).order_by(deliveries.c.created.desc()).limit(limit)
    if user_id is not None:
        query = query.where(deliveries.c.user_id == user_id)
    if webhook_id is not None:
        query = query.where(deliveries.c.webhook_id == webhook_id)
    return [msgspec.convert(row, Delivery, from_attributes=True) for row in connection.execute(query)]


def replay(connection: Connection, delivery_id: str, user_id: str | None) -> Delivery:
    """Send again what was sent or given up, with the same id. Raises NotFound."""
    row = connection.execute(select(deliveries).where(deliveries.c.id == delivery_id)).first()
    if row is None or user_id not in (None, row.user_id):
        raise errors.NotFound(f"There is no delivery '{delivery_id}'.")
    now = time.time()
    changes = {"state": "pending", "attempts": 0, "next_attempt": now, "finished": None, "created": now}
    connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(changes))
    again = connection.execute(select(deliveries).where(deliveries.c.id == delivery_id)).one()
    return msgspec.convert(again, Delivery, from_attributes=True)


def delete_owned(connection: Connection, user_id: str) -> None:
    """All webhooks of a user, and all messages, sent or not."""
    connection.execute(delete(webhooks).where(webhooks.c.user_id == user_id))
    connection.execute(delete(deliveries).where(deliveries.c.user_id == user_id))


def forget(connection: Connection, ended_before: float) -> int:
    """Delete what ended before a time; returns how many."""
    return connection.execute(delete(deliveries).where(deliveries.c.finished < ended_before)).rowcount
