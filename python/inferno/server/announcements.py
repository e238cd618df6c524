"""What webhooks are told: which event, to whom, in which words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from inferno.batch.jobs import Batch
from inferno.models.pool import LoadReport
from inferno.request import Usage
from inferno.server.dialects.batch import render_status
from inferno.store.database import Database
from inferno.webhooks import outbox
from inferno.webhooks.deliverer import Deliverer
from inferno.webhooks.endpoints import Webhook, list_webhooks

#: How long the server believes what it knows of who wants to be told.
_KNOWN_S = 3.0


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


class Announcements:
    """Tells webhooks of what leaves no trace in the database. Costs a request nothing while nobody wants to know."""

    def __init__(self, database: Database, deliverer: Deliverer) -> None:
        self._database = database
        self._deliverer = deliverer
        self._webhooks: list[Webhook] = []
        self._known_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

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
        """Wait until what was told stands in the outbox."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tell(self, event: str, data: dict[str, Any], user_id: str | None) -> None:
        if time.monotonic() < self._known_until and not self._is_wanted(event, user_id):
            return
        task = asyncio.get_running_loop().create_task(self._announce(event, data, user_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_wanted(self, event: str, user_id: str | None) -> bool:
        return any(
            event in webhook.events and not webhook.disabled and outbox.concerns(webhook.user_id, user_id)
            for webhook in self._webhooks
        )

    async def _announce(self, event: str, data: dict[str, Any], user_id: str | None) -> None:
        if time.monotonic() >= self._known_until:
            self._webhooks = await self._database.read(list_webhooks)
            self._known_until = time.monotonic() + _KNOWN_S
        if self._is_wanted(event, user_id):
            await self._database.write(lambda connection: outbox.announce(connection, event, data, user_id))
            self._deliverer.wake()

    def changed(self) -> None:
        """A webhook was made, changed or deleted."""
        self._known_until = 0.0
