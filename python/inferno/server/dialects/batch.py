"""POST /batch: one body with many prompts -> items, each checked as /inference would check it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from inferno import errors
from inferno.batch.jobs import Batch, ItemResult, NewItem
from inferno.request import Result, TextPrompt
from inferno.server.body import Body
from inferno.server.dialects import native
from inferno.webhooks.signing import check_secret

_MAX_ID = 128
#: Fields of the batch that its requests do not inherit.
_OWN = frozenset({"requests", "webhook_url", "webhook_secret", "prompt", "id"})


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    items: list[NewItem]
    webhook_url: str | None
    webhook_secret: str | None
    fingerprint: str


def parse(body: Body, max_items: int) -> Submission:
    """Raises InvalidRequest naming the field, as in `requests[3].temperature`."""
    model = body.text("model")
    rows = body.items("requests", max_items)
    shared = {key: value for key, value in body.fields.items() if key not in _OWN}
    # A bad field that all share is told as the batch's own.
    common = native.parse(Body({**shared, "prompt": "x"})).sampling
    items = [_item(Body(row, f"requests[{i}]"), shared, common, f"requests[{i}]", i) for i, row in enumerate(rows)]
    _refuse_duplicates(items)
    return Submission(
        model=model,
        items=items,
        webhook_url=_optional(body, "webhook_url"),
        webhook_secret=_secret(body),
        fingerprint=hashlib.sha256(msgspec.json.encode(body.fields, order="deterministic")).hexdigest(),
    )


def _item(row: Body, shared: dict[str, Any], common: Mapping[str, Any], path: str, index: int) -> NewItem:
    if row.has("model") and row.raw("model") != shared["model"]:
        row.refuse("model", "the batch's")
    item_id = row.text("id", f"item_{index}")
    if not 1 <= len(item_id) <= _MAX_ID or "\0" in item_id:
        row.refuse("id", f"a text of 1 to {_MAX_ID} characters without NUL")
    try:
        request = native.parse(Body({**shared, **row.fields}))
    except errors.InvalidRequest as error:
        raise errors.InvalidRequest(f"{path}.{error.message}", field=f"{path}.{error.field}") from None
    (prompt,) = request.prompts
    assert isinstance(prompt, TextPrompt)
    # One copy of what is equal: thousands of items may share a long schema.
    sampling = {
        name: common[name] if name in common and common[name] == value else value
        for name, value in request.sampling.items()
    }
    return NewItem(item_id, prompt.text, sampling)


def _refuse_duplicates(items: list[NewItem]) -> None:
    seen: set[str] = set()
    for i, item in enumerate(items):
        if item.id in seen:
            raise errors.InvalidRequest(f"requests[{i}].id is there twice.", field=f"requests[{i}].id")
        seen.add(item.id)


def _optional(body: Body, key: str) -> str | None:
    return body.text(key) if body.has(key) else None


def _secret(body: Body) -> str | None:
    secret = _optional(body, "webhook_secret")
    if secret is not None:
        try:
            check_secret(secret)
        except errors.InvalidRequest as error:
            raise errors.InvalidRequest(f"webhook_{error.message}", field="webhook_secret") from None
    return secret


def render_status(batch: Batch) -> dict[str, Any]:
    return {
        "batch_id": batch.id,
        "status": batch.status,
        "completed": batch.completed,
        "failed": batch.failed,
        "cancelled": batch.cancelled,
        "total": batch.total,
        "results_url": f"/batch/{batch.id}/results",
        "model": batch.model,
        "created": int(batch.created),
        "finished": None if batch.finished is None else int(batch.finished),
        "error": batch.error,
    }


def render_result(result: Result, elapsed_ms: int) -> dict[str, Any]:
    """What is kept of an item that was computed."""
    usage = {
        "prompt_tokens": result.usage.prompt_tokens,
        "completion_tokens": result.usage.completion_tokens,
        "total_tokens": result.usage.total_tokens,
    }
    return {"choices": native.render_choices(result), "usage": usage, "processing_time_ms": elapsed_ms}


def render_item(item: ItemResult) -> dict[str, Any]:
    result = item.result or {}
    return {
        "id": item.item_id,
        "status": item.state,
        "choices": result.get("choices", []),
        "usage": result.get("usage"),
        "processing_time_ms": result.get("processing_time_ms"),
        "error": result.get("error"),
    }
