"""The callers' webhooks: POST and GET /webhooks, GET and DELETE /webhooks/{id}, test, secret, deliveries, replay."""

from __future__ import annotations

from typing import Any

from inferno import errors
from inferno.server.audited import audited
from inferno.server.call import Answer, Call
from inferno.server.errors import iso
from inferno.webhooks import endpoints, outbox
from inferno.webhooks.endpoints import EVENTS, Webhook
from inferno.webhooks.outbox import Delivery
from inferno.webhooks.signing import new_secret
from inferno.webhooks.target import check_url

_MOST_LISTED = 100


async def create(call: Call) -> Answer:
    """Without a secret one is made, and told this once."""
    body = await call.body()
    url, events, given = body.text("webhook_url"), body.items("events", len(EVENTS)), body.text("secret", "")
    if not all(isinstance(event, str) for event in events):
        body.refuse("events", f"some of {', '.join(EVENTS)}")
    secret = given or new_secret()
    endpoints.check_webhook(url, events, secret)
    await call.services.webhooks.check_target(url)
    user_id, target = call.known_caller.user_id, check_url(url)
    # The rest of an address is often what lets one in there.
    async with audited(call, "webhook.create", f"{target.scheme}://{target.authority}"):
        made = await call.services.database.write(
            lambda c: endpoints.create_webhook(c, user_id=user_id, url=url, events=events, secret=secret)
        )
    call.services.announcements.changed()
    return Answer(_shown(made) if given else {**_shown(made), "secret": secret})


async def list_all(call: Call) -> Answer:
    user_id = call.known_caller.user_id
    found = await call.services.database.read(lambda c: endpoints.list_webhooks(c, user_id))
    return Answer({"webhooks": [_shown(webhook) for webhook in found]})


async def show(call: Call) -> Answer:
    return Answer(_shown(await _webhook(call)))


async def remove(call: Call) -> Answer:
    webhook = await _webhook(call)
    async with audited(call, "webhook.delete", webhook.id):
        await call.services.database.write(lambda c: endpoints.delete_webhook(c, webhook.id, webhook.user_id))
    call.services.announcements.changed()
    return Answer({"id": webhook.id, "deleted": True})


async def rotate(call: Call) -> Answer:
    """A new secret, told this once; the old one signs as well for a day."""
    webhook, secret = await _webhook(call), new_secret()
    async with audited(call, "webhook.rotate", webhook.id):
        changed = await call.services.database.write(
            lambda c: endpoints.rotate_secret(c, webhook.id, webhook.user_id, secret)
        )
    return Answer({**_shown(changed), "secret": secret})


async def test(call: Call) -> Answer:
    """Sends a message of the webhook's first event with made-up data, in which `test` is true."""
    webhook = await _webhook(call)
    if webhook.disabled:
        raise errors.InvalidRequest(f"The webhook is disabled: {webhook.disabled}.", field="id")
    message = await call.services.database.write(lambda c: outbox.send_test(c, webhook, {"test": True}))
    call.services.webhooks.wake()
    return Answer({"id": webhook.id, "delivery": message, "status": "queued"})


async def deliveries(call: Call) -> Answer:
    webhook = await _webhook(call)
    found = await call.services.database.read(
        lambda c: outbox.history(c, webhook.user_id, webhook_id=webhook.id, limit=_MOST_LISTED)
    )
    return Answer({"deliveries": [_delivery(delivery) for delivery in found]})


async def replay(call: Call) -> Answer:
    delivery_id, user_id = call.path_params["delivery_id"], call.known_caller.user_id
    delivery = await call.services.database.write(lambda c: outbox.replay(c, delivery_id, user_id))
    call.services.webhooks.wake()
    return Answer(_delivery(delivery))


async def _webhook(call: Call) -> Webhook:
    webhook_id, user_id = call.path_params["webhook_id"], call.known_caller.user_id
    return await call.services.database.read(lambda c: endpoints.get_webhook(c, webhook_id, user_id))


def _shown(webhook: Webhook) -> dict[str, Any]:
    """Never the secret."""
    return {
        "id": webhook.id,
        "webhook_url": webhook.url,
        "events": webhook.events,
        "created": int(webhook.created),
        "disabled": webhook.disabled,
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "webhook_id": delivery.webhook_id,
        "event": delivery.event,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created": iso(delivery.created),
        "next_attempt": None if delivery.next_attempt is None else iso(delivery.next_attempt),
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
    }
