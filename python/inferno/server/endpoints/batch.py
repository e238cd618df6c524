"""POST /batch, GET /batch, GET /batch/{id}, GET /batch/{id}/results, POST /batch/{id}/cancel."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import msgspec

from inferno import errors
from inferno.batch import jobs
from inferno.batch.jobs import Batch, ItemResult
from inferno.server.call import Answer, Call
from inferno.server.dialects import batch as dialect

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
#: Results read and written at a time.
_PAGE = 500
_MOST_LISTED = 100


async def submit(call: Call) -> Answer:
    """Answers once the batch is on the disk. `Idempotency-Key` makes it safe to ask again."""
    services, caller = call.services, call.known_caller
    value = await call.body()
    submission = await asyncio.to_thread(dialect.parse, value, services.settings.batch.max_items)
    caller.require_model(submission.model)
    await _check_model(call, submission.model)
    if submission.webhook_url is not None:
        await services.webhooks.check_target(submission.webhook_url)
    key = _idempotency_key(call)
    batch = await services.database.write(
        lambda connection: jobs.submit(
            connection,
            user_id=caller.user_id,
            model=submission.model,
            items=submission.items,
            fingerprint=submission.fingerprint,
            max_queued=services.settings.batch.max_queued_items,
            idempotency_key=key,
            webhook_url=submission.webhook_url,
            webhook_secret=submission.webhook_secret,
        )
    )
    services.batches.wake()
    return Answer(
        {
            "batch_id": batch.id,
            "status": batch.status,
            "total_requests": batch.total,
            "created": int(batch.created),
        }
    )


async def _check_model(call: Call, model: str) -> None:
    """Raises ModelNotFound, ModelNotLoaded, InvalidRequest."""
    entry = await asyncio.to_thread(call.services.registry.get, model)
    if not entry.info.can_generate:
        raise errors.InvalidRequest(f"Model '{model}' does not generate text.", field="model")
    if not call.services.settings.models.autoload and model not in call.services.pool.statuses():
        raise errors.ModelNotLoaded(f"Model '{model}' is not loaded")


def _idempotency_key(call: Call) -> str | None:
    key = call.headers.get("idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise errors.InvalidRequest("Idempotency-Key must be 1 to 255 visible characters.", field="Idempotency-Key")
    return key


async def status(call: Call) -> Answer:
    return Answer(dialect.render_status(await _batch(call)))


async def list_batches(call: Call) -> Answer:
    """The newest first."""
    user_id = call.known_caller.user_id
    found = await call.services.database.read(lambda c: jobs.owned(c, user_id, limit=_MOST_LISTED))
    return Answer({"batches": [dialect.render_status(batch) for batch in found]})


async def cancel(call: Call) -> Answer:
    batch = await _batch(call)
    ended = await call.services.database.write(lambda c: jobs.cancel(c, batch.id, batch.user_id))
    call.services.batches.stop_batch(batch.id)
    return Answer(dialect.render_status(ended))


async def results(call: Call) -> None:
    """What has ended so far, in the order of submission, read and written a page at a time."""
    batch = await _batch(call)
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await call.send({"type": "http.response.start", "status": 200, "headers": headers})
    head = msgspec.json.encode({"batch_id": batch.id, "status": batch.status})
    await _write(call, head[:-1] + b',"results":[')
    after, first = -1, True
    while page := await _page(call, batch, after):
        await _write(call, (b"" if first else b",") + _joined(page))
        after, first = page[-1].position, False
    call.answered = True
    await call.send({"type": "http.response.body", "body": b"]}", "more_body": False})


async def _page(call: Call, batch: Batch, after: int) -> list[ItemResult]:
    return await call.services.database.read(lambda c: jobs.results(c, batch.id, after=after, limit=_PAGE))


def _joined(page: Sequence[ItemResult]) -> bytes:
    return b",".join(msgspec.json.encode(dialect.render_item(item)) for item in page)


async def _write(call: Call, data: bytes) -> None:
    await call.send({"type": "http.response.body", "body": data, "more_body": True})


async def _batch(call: Call) -> Batch:
    """The caller's batch of the path. Raises NotFound."""
    batch_id, user_id = call.path_params["batch_id"], call.known_caller.user_id
    return await call.services.database.read(lambda c: jobs.get(c, batch_id, user_id))
