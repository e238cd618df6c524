"""Batches and their items in the database. Functions of a connection; the caller owns the transaction.

An item goes from `queued` to `running` when it is claimed and from there to `completed`, `failed` or `cancelled`, once.
Whoever claims it gets a fencing token; a result is written only with the token of the newest claim, so that a worker
that was thought dead cannot write over its successor. An item may be computed more than once, its result is recorded
once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from inferno import errors
from inferno.request import new_id
from inferno.store.schema import batch_items, batches

BatchState: TypeAlias = Literal["processing", "completed", "failed", "cancelled"]
ItemState: TypeAlias = Literal["queued", "running", "completed", "failed", "cancelled"]

#: Seconds for which a claim holds unless it is renewed.
LEASE_S = 60.0
#: An item that took its worker down this often is given up.
MAX_ATTEMPTS = 3
_INSERTED_AT_ONCE = 500
_OPEN = ("queued", "running")


class NewItem(msgspec.Struct, frozen=True):
    id: str
    prompt: str
    sampling: Mapping[str, Any]


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    user_id: str
    model: str
    status: BatchState
    total: int
    completed: int
    failed: int
    cancelled: int
    created: float
    finished: float | None
    error: Mapping[str, Any] | None
    webhook_url: str | None
    webhook_secret: str | None
    fingerprint: str


#: Columns of a Batch: what its items share may be long and is of no use to others.
_SUMMARY = [batches.c[name] for name in Batch.__struct_fields__]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One item to work on. `attempts` counts this one."""

    batch_id: str
    user_id: str
    model: str
    position: int
    prompt: str
    sampling: Mapping[str, Any]
    attempts: int
    fence: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a claim: a result to keep, or `queued` again; `counted` False takes the attempt back."""

    claim: Claim
    state: Literal["completed", "failed", "queued"]
    result: Mapping[str, Any] | None = None
    counted: bool = True


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many there are in each state, of all owners."""

    batches: Mapping[str, int]
    items: Mapping[str, int]


class ItemResult(msgspec.Struct, frozen=True, kw_only=True):
    position: int
    item_id: str
    state: ItemState
    result: Mapping[str, Any] | None


# ---- what owners do ----


def submit(
    connection: Connection,
    *,
    user_id: str,
    model: str,
    items: Sequence[NewItem],
    fingerprint: str,
    max_queued: int,
    idempotency_key: str | None = None,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
) -> Batch:
    """A new batch, or for an idempotency key that was used before with the same body the one it made.

    Raises InvalidRequest for a key that was used with another body, ServiceUnavailable when too much waits already.
    """
    if idempotency_key is not None and (known := _by_key(connection, user_id, idempotency_key)) is not None:
        if known.fingerprint != fingerprint:
            raise errors.InvalidRequest("This key was used for another batch.", field="Idempotency-Key")
        return known
    _check_room(connection, user_id, len(items), max_queued)
    batch_id = new_id("batch")
    shared = _shared([item.sampling for item in items])
    row = {
        "id": batch_id,
        "user_id": user_id,
        "model": model,
        "status": "processing",
        "total": len(items),
        "created": time.time(),
        "webhook_url": webhook_url,
        "webhook_secret": webhook_secret,
        "idempotency_key": idempotency_key,
        "fingerprint": fingerprint,
        "shared": shared,
    }
    connection.execute(insert(batches).values(row))
    rows = [
        {"batch_id": batch_id, "position": i, "item_id": item.id, "request": _own(item, shared), "state": "queued"}
        for i, item in enumerate(items)
    ]
    for start in range(0, len(rows), _INSERTED_AT_ONCE):
        connection.execute(insert(batch_items), rows[start : start + _INSERTED_AT_ONCE])
    return get(connection, batch_id, user_id)


def _shared(samplings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all have in common: a schema of 64 KiB is not to be written for each of 10,000."""
    first = samplings[0]
    return {
        name: value
        for name, value in first.items()
        if all(name in other and (other[name] is value or other[name] == value) for other in samplings)
    }


def _own(item: NewItem, shared: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in item.sampling.items() if name not in shared}
    return {"prompt": item.prompt, "sampling": own}


def _by_key(connection: Connection, user_id: str, key: str) -> Batch | None:
    query = select(*_SUMMARY).where(batches.c.user_id == user_id, batches.c.idempotency_key == key)
    row = connection.execute(query).first()
    return None if row is None else msgspec.convert(row, Batch, from_attributes=True)


def _check_room(connection: Connection, user_id: str, more: int, most: int) -> None:
    left = func.sum(batches.c.total - batches.c.completed - batches.c.failed)
    query = select(left).where(batches.c.user_id == user_id, batches.c.status == "processing")
    if (connection.execute(query).scalar() or 0) + more > most:
        raise errors.ServiceUnavailable(f"At most {most} requests of your batches may wait.", retry_after=60)


def get(connection: Connection, batch_id: str, user_id: str | None) -> Batch:
    """Raises NotFound, also for somebody else's batch (`user_id` None sees all)."""
    row = connection.execute(select(*_SUMMARY).where(batches.c.id == batch_id)).first()
    if row is None or user_id not in (None, row.user_id):
        raise errors.NotFound(f"There is no batch '{batch_id}'.")
    return msgspec.convert(row, Batch, from_attributes=True)


def owned(connection: Connection, user_id: str | None, *, limit: int, before: float | None = None) -> list[Batch]:
    """The newest first; `before` is the creation time of the last one seen."""
    query = select(*_SUMMARY).order_by(batches.c.created.desc()).limit(limit)
    if user_id is not None:
        query = query.where(batches.c.user_id == user_id)
    if before is not None:
        query = query.where(batches.c.created < before)
    return [msgspec.convert(row, Batch, from_attributes=True) for row in connection.execute(query)]


def count(connection: Connection) -> Counts:
    """One statement, which looks at the batches and at the items in work; the others may be many."""
    working = select(func.count()).where(batch_items.c.state == "running").scalar_subquery()
    ended = [func.sum(batches.c[name]).label(name) for name in ("completed", "failed", "cancelled")]
    columns = [batches.c.status, func.count().label("number"), func.sum(batches.c.total).label("total"), *ended]
    rows = connection.execute(select(*columns, working.label("running")).group_by(batches.c.status)).all()
    items = {name: sum(getattr(row, name) for row in rows) for name in ("completed", "failed", "cancelled")}
    running = rows[0].running if rows else 0
    queued = sum(row.total for row in rows) - sum(items.values()) - running
    by_status = {row.status: row.number for row in rows}
    return Counts(
        batches={status: by_status.get(status, 0) for status in get_args(BatchState)},
        items={"queued": queued, "running": running, **items},
    )


def results(connection: Connection, batch_id: str, *, after: int, limit: int) -> list[ItemResult]:
    """Items that have ended, in the order of submission, with positions greater than `after`."""
    item = batch_items.c
    query = (
        select(item.position, item.item_id, item.state, item.result)
        .where(item.batch_id == batch_id, item.position > after, item.state.not_in(_OPEN))
        .order_by(item.position)
        .limit(limit)
    )
    return [msgspec.convert(row, ItemResult, from_attributes=True) for row in connection.execute(query)]


def cancel(connection: Connection, batch_id: str, user_id: str | None) -> Batch:
    """What has not ended never will. Raises NotFound. Harmless for a batch that has ended."""
    batch = get(connection, batch_id, user_id)
    if batch.status == "processing":
        gone = _end_items(connection, batch_id, "cancelled", None)
        ended = {"status": "cancelled", "cancelled": gone, "finished": time.time()}
        connection.execute(update(batches).where(batches.c.id == batch_id).values(ended))
    return get(connection, batch_id, None)


def delete_owned(connection: Connection, user_id: str) -> None:
    """All batches of a user, with their results; what comes of items in work is dropped."""
    connection.execute(delete(batches).where(batches.c.user_id == user_id))


def _end_items(connection: Connection, batch_id: str, state: str, result: Mapping[str, Any] | None) -> int:
    """Those that have not ended, whoever works on them; returns how many."""
    item = batch_items.c
    changes = {"state": state, "result": result, "fence": item.fence + 1, "lease_until": None}
    ended = connection.execute(
        update(batch_items).where(item.batch_id == batch_id, item.state.in_(_OPEN)).values(changes)
    )
    return ended.rowcount


# ---- what the runner does ----


def recover(connection: Connection, *, alone: bool) -> int:
    """Put back what was being worked on: everything when no other server can be at it (`alone`), else what nobody has
    renewed in time. Returns how many."""
    item = batch_items.c
    lost: ColumnElement[bool] = item.state == "running"
    if not alone:
        lost = and_(lost, item.lease_until < time.time())
    changes = {"state": "queued", "lease_until": None}
    return connection.execute(update(batch_items).where(lost).values(changes)).rowcount


def waiting_models(connection: Connection) -> list[str]:
    """Models that items wait for."""
    item = batch_items.c
    waits = select(item.batch_id).where(item.batch_id == batches.c.id, item.state == "queued").exists()
    query = select(batches.c.model).where(batches.c.status == "processing", waits).distinct()
    return list(connection.execute(query).scalars())


def claim(connection: Connection, model: str, limit: int, *, suspects: bool = False) -> list[Claim]:
    """Take up to `limit` items, an equal share from each batch. Items whose attempt was cut short (`suspects`) are
    taken apart from the others: one of them may be what took the worker down."""
    item = batch_items.c
    which = item.attempts > 0 if suspects else item.attempts == 0
    active = list(
        connection.execute(
            select(batches.c.id, batches.c.user_id)
            .where(batches.c.model == model, batches.c.status == "processing")
            .order_by(batches.c.created)
        )
    )
    claims: list[Claim] = []
    for i, (batch_id, user_id) in enumerate(active):
        share = -(-(limit - len(claims)) // (len(active) - i))
        query = (
            select(item.position, item.request, item.attempts, item.fence)
            .where(item.batch_id == batch_id, item.state == "queued", which)
            .order_by(item.position)
            .limit(share)
            .with_for_update(skip_locked=True)
        )
        if rows := connection.execute(query).all():
            _take(connection, batch_id, [row.position for row in rows])
            shared = connection.execute(select(batches.c.shared).where(batches.c.id == batch_id)).scalar_one() or {}
            claims += [_claimed(model, batch_id, user_id, shared, row._mapping) for row in rows]
    return claims


def _take(connection: Connection, batch_id: str, positions: Sequence[int]) -> None:
    """In one statement: one for each item would be much of what a batch costs."""
    item = batch_items.c
    changes = {
        "state": "running",
        "attempts": item.attempts + 1,
        "fence": item.fence + 1,
        "lease_until": time.time() + LEASE_S,
    }
    taken = update(batch_items).where(item.batch_id == batch_id, item.position.in_(positions))
    connection.execute(taken.values(changes))


def _claimed(model: str, batch_id: str, user_id: str, shared: Mapping[str, Any], row: Mapping[Any, Any]) -> Claim:
    """What `_take` has made of the row."""
    return Claim(
        batch_id=batch_id,
        user_id=user_id,
        model=model,
        position=row["position"],
        prompt=row["request"]["prompt"],
        sampling={**shared, **row["request"]["sampling"]},
        attempts=row["attempts"] + 1,
        fence=row["fence"] + 1,
    )


def _is(claim: Claim) -> ColumnElement[bool]:
    return and_(batch_items.c.batch_id == claim.batch_id, batch_items.c.position == claim.position)


def _holds(claim: Claim) -> ColumnElement[bool]:
    """It is still this claim's turn."""
    return and_(_is(claim), batch_items.c.state == "running", batch_items.c.fence == claim.fence)


def renew(connection: Connection, claims: Iterable[Claim]) -> None:
    until = time.time() + LEASE_S
    for held in claims:
        connection.execute(update(batch_items).where(_holds(held)).values(lease_until=until))


def record(connection: Connection, outcomes: Sequence[Outcome]) -> list[Batch]:
    """Write down what came of claims; of those that have lost their turn, nothing. Returns batches that this ended."""
    touched: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        changes: dict[str, Any] = {"state": outcome.state, "lease_until": None}
        if outcome.state != "queued":
            changes["result"] = outcome.result
        elif not outcome.counted:
            changes["attempts"] = outcome.claim.attempts - 1
        written = connection.execute(update(batch_items).where(_holds(outcome.claim)).values(changes)).rowcount
        if written and outcome.state != "queued":
            counts = touched.setdefault(outcome.claim.batch_id, {"completed": 0, "failed": 0})
            counts[outcome.state] += 1
    for batch_id, counts in touched.items():
        added = {name: batches.c[name] + count for name, count in counts.items()}
        connection.execute(update(batches).where(batches.c.id == batch_id).values(added))
    return [ended for batch_id in touched if (ended := _ended(connection, batch_id)) is not None]


def _ended(connection: Connection, batch_id: str) -> Batch | None:
    """The batch, marked as completed, if this was its last item."""
    done = batches.c.completed + batches.c.failed >= batches.c.total
    query = update(batches).where(batches.c.id == batch_id, batches.c.status == "processing", done)
    changed = connection.execute(query.values(status="completed", finished=time.time())).rowcount
    return get(connection, batch_id, None) if changed else None


def fail_model(connection: Connection, model: str, error: errors.InfernoError) -> list[Batch]:
    """End all batches for a model that cannot be had, with `error` as what became of their open items."""
    query = select(batches.c.id).where(batches.c.model == model, batches.c.status == "processing")
    return [_fail(connection, batch_id, error) for batch_id in list(connection.execute(query).scalars())]


def _fail(connection: Connection, batch_id: str, error: errors.InfernoError) -> Batch:
    info = {"code": error.code, "message": error.message}
    count = _end_items(connection, batch_id, "failed", {"error": info})
    batch = get(connection, batch_id, None)
    changes = {
        "status": "completed" if batch.completed else "failed",
        "failed": batch.failed + count,
        "finished": time.time(),
        "error": info,
    }
    connection.execute(update(batches).where(batches.c.id == batch_id).values(changes))
    return get(connection, batch_id, None)


def forget(connection: Connection, ended_before: float) -> int:
    """Delete batches that ended before a time, with their results; returns how many."""
    old = or_(batches.c.finished < ended_before)
    return connection.execute(delete(batches).where(old)).rowcount
