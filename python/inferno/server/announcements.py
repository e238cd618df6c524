"""What webhooks are told: which event, to whom, in which words."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from inferno import errors
from inferno.batch.jobs import Batch
from inferno.models.pool import LoadReport
from inferno.request import Usage
from inferno.server.dialects.batch import render_status
from inferno.store.database import LAST_WRITE_S, RETRY_S, Database
from inferno.webhooks import outbox
from inferno.webhooks.deliverer import Deliverer
from inferno.webhooks.endpoints import Webhook, list_webhooks

log = logging.getLogger(__name__)

#: How long the server believes what it knows of who wants to be told.
_KNOWN_S = 3.0
#: Events that may wait for a database that does not answer.
_MOST_WAITING = 10_000


def batch_ended(default_secret: str) -> Callable[[Connection, Batch], None]:
    """What to do in the transaction that ends a batch: tell the owner's webhooks, and the address the batch came with,
    signed with its own secret, else one of the owner's, else `default_secret`."""

    def tell(connection: Connection, batch: Batch) -> None:
        seconds = (batch.finished or time.time()) - batch.created
        data = {**render_status(batch), "duration_ms": round(seconds * 1000)}
        outbox.announce(connection, "batch.complete", data, batch.user_id)
        if batch.webhook_url is not None:
            secret = batch.webhook_secret or _owners_secret(connection, batch) or default_secret or None
            owner, url = batch.user_id, batch.webhook_url
            outbox.address(connection, "batch.complete", data, user_id=owner, url=url, secret=secret)

    return tell


def _owners_secret(connection: Connection, batch: Batch) -> str | None:
    """Of the webhook with the same address, else of the owner's oldest."""
    owned = [webhook for webhook in list_webhooks(connection, batch.user_id) if webhook.secret]
    same = [webhook for webhook in owned if webhook.url == batch.webhook_url]
    return next((webhook.secret for webhook in (*same, *owned)), None)


class _Event(NamedTuple):
    name: str
    data: dict[str, Any]
    user_id: str | None


class Announcements:
    """Tells webhooks of what leaves no trace in the database. Costs a request nothing while nobody wants to know.

    One task writes all that waits in one transaction, while more gathers; a database that is away is waited for.
    """

    def __init__(self, database: Database, deliverer: Deliverer) -> None:
        self._database = database
        self._deliverer = deliverer
        self._webhooks: list[Webhook] = []
        self._known_until = 0.0
        self._waiting: list[_Event] = []
        self._writing: asyncio.Task[None] | None = None

    def inference(self, user_id: str, request_id: str, model: str, usage: Usage, duration_ms: int) -> None:
        data = {
            "request_id": request_id,
            "model": model,
            "tokens_generated": usage.completion_tokens,
            "duration_ms": duration_ms,
        }
        self._tell("inference.complete", data, user_id)

    def model_loaded(self, report: LoadReport) -> None:
        data = {
            "status": "loaded",
            "model_id": report.model_id,
            "memory_usage_bytes": report.memory_bytes,
            "load_time_ms": report.load_time_ms,
        }
        self._tell("model.loaded", data, None)

    async def settle(self) -> None:
        """Wait until what was told stands in the outbox, but not for a database that is away."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=LAST_WRITE_S)
            self._writing.cancel()

    def _tell(self, name: str, data: dict[str, Any], user_id: str | None) -> None:
        if time.monotonic() < self._known_until and not self._is_wanted(name, user_id):
            return
        if len(self._waiting) >= _MOST_WAITING:
            log.error("webhooks are not told of %s: too much waits for the database", name)
            return
        self._waiting.append(_Event(name, data, user_id))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    def _is_wanted(self, event: str, user_id: str | None) -> bool:
        return any(
            event in webhook.events and not webhook.disabled and outbox.concerns(webhook.user_id, user_id)
            for webhook in self._webhooks
        )

    async def _write(self) -> None:
        while told := list(self._waiting):
            try:
                await self._announce(told)
            except errors.ServiceUnavailable as error:
                log.warning("announcements wait: %s", error.message)
                await asyncio.sleep(RETRY_S)
                continue
            except Exception:
                log.exception("webhooks could not be told of %d events", len(told))
            del self._waiting[: len(told)]

    async def _announce(self, told: Sequence[_Event]) -> None:
        if time.monotonic() >= self._known_until:
            self._webhooks = await self._database.read(list_webhooks)
            self._known_until = time.monotonic() + _KNOWN_S
        wanted = [event for event in told if self._is_wanted(event.name, event.user_id)]
        if not wanted:
            return

        def write(connection: Connection) -> None:
            for event in wanted:
                outbox.announce(connection, event.name, event.data, event.user_id)

        await self._database.write(write)
        self._deliverer.wake()

    def changed(self) -> None:
        """A webhook was made, changed or deleted."""
        self._known_until = 0.0
