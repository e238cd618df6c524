"""Sends what the outbox holds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy import Connection

from inferno import errors
from inferno.store.database import RETRY_S, Database
from inferno.webhooks import outbound, outbox
from inferno.webhooks.outbound import Policy
from inferno.webhooks.outbox import Delivery
from inferno.webhooks.outcome import Outcome
from inferno.webhooks.signing import attempt_headers, event_body

log = logging.getLogger(__name__)

#: Attempts under way at once, and to one origin, so that receivers that hang do not keep others waiting.
_AT_ONCE = 32
_AT_ONCE_TO_ONE = 4
#: An attempt that was cut short by the end of the process is made again after this many seconds.
_HOLD_S = 60.0
_LOOK_S = 5.0
_RETENTION_S = 30 * 86400.0


class Deliverer:
    """One for a server. `run` is to be kept running."""

    def __init__(
        self,
        database: Database,
        policy: Policy,
        draw: Callable[[], float] = random.random,
        count: Callable[[str, outbox.State], None] = lambda event, state: None,
    ) -> None:
        self._database = database
        self.policy = policy
        self._draw = draw
        self._count = count
        self._news = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._busy: Counter[str] = Counter()  # attempts under way, by origin

    async def check_target(self, url: str) -> None:
        """Raises InvalidRequest(field="webhook_url") for an address that would not be sent to."""
        await outbound.check_target(url, self.policy)

    def wake(self) -> None:
        """There is a new message."""
        self._news.set()

    async def run(self) -> None:
        """Never returns by itself. An attempt under way when it ends is made again later."""
        try:
            while True:
                self._news.clear()
                await self._send_what_is_due()
                pause = await self._pause()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), pause)
        finally:
            sending = list(self._sending.values())
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def forget_old(self) -> None:
        before = time.time() - _RETENTION_S
        await self._database.write(lambda connection: outbox.forget(connection, before))

    async def _pause(self) -> float:
        without = self._taken_up()
        when = await self._database.read(lambda c: outbox.next_due(c, without))
        return _LOOK_S if when is None else min(max(when - time.time(), 0.05), _LOOK_S)

    async def _send_what_is_due(self) -> None:
        without = self._taken_up()
        found = await self._database.read(lambda c: outbox.due(c, time.time(), 4 * _AT_ONCE, without))
        for delivery in found:
            origin = _origin(delivery.url)
            if delivery.id in self._sending or len(self._sending) >= _AT_ONCE:
                continue
            if self._busy[origin] < _AT_ONCE_TO_ONE:
                self._start(delivery, origin)

    def _taken_up(self) -> list[str]:
        """Origins that no more attempts are made to at once, however many messages wait for them."""
        return [origin for origin, count in self._busy.items() if count >= _AT_ONCE_TO_ONE]

    def _start(self, delivery: Delivery, origin: str) -> None:
        self._busy[origin] += 1
        task = self._sending[delivery.id] = asyncio.create_task(self._attempt(delivery))

        def ended(_: object) -> None:
            del self._sending[delivery.id]
            self._busy[origin] -= 1
            self._busy = +self._busy  # without zeros
            self.wake()

        task.add_done_callback(ended)

    async def _attempt(self, delivery: Delivery) -> None:
        """Once. The attempt is counted before it is made: a receiver that kills us is not asked for ever."""
        try:
            now = time.time()
            secrets = await self._database.write(lambda c: outbox.begin(c, delivery, now, _HOLD_S))
            if secrets is not None:
                outcome = await self._send(delivery, secrets)
                await self._settle(delivery, outcome)
        except errors.ServiceUnavailable as error:
            log.warning("a webhook waits: %s", error.message)
            await asyncio.sleep(RETRY_S)

    async def _send(self, delivery: Delivery, secrets: list[str]) -> Outcome:
        """A fault of ours is an outcome too: without one the attempt would be made again for ever."""
        began = time.monotonic()
        try:
            return await self._post(delivery, secrets)
        except Exception:
            log.exception("a webhook failed unexpectedly", extra={"fields": {"delivery": delivery.id}})
            return Outcome(seconds=time.monotonic() - began, error="internal_error")

    async def _post(self, delivery: Delivery, secrets: list[str]) -> Outcome:
        now = time.time()
        secret = secrets[0] if secrets else None
        body = event_body(delivery.event, delivery.payload, created=delivery.created, secret=secret)
        headers = attempt_headers(body, event=delivery.event, delivery_id=delivery.id, sent=now, secrets=secrets)
        return await outbound.post(delivery.url, body, headers, policy=self.policy)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        def settle(connection: Connection) -> outbox.State:
            return outbox.settle(connection, delivery, outcome, time.time(), self._draw)

        state = await self._database.write(settle)
        self._count(delivery.event, state)
        fields = {
            "delivery": delivery.id,
            "event": delivery.event,
            "state": state,
            "status": outcome.status or outcome.error,
        }
        log.info("webhook", extra={"fields": fields})


def _origin(url: str) -> str:
    """Scheme, host and port as they are written, in lower case."""
    scheme, _, rest = url.lower().partition("://")
    return f"{scheme}://{re.split('[/?]', rest, maxsplit=1)[0]}"
