"""The models: listed in the API document's shape and in OpenAI's, loaded and unloaded."""

from __future__ import annotations

import asyncio
from typing import Any

from inferno import _core
from inferno.models.pool import Status
from inferno.models.registry import ModelEntry
from inferno.server.audited import audited
from inferno.server.body import Body
from inferno.server.call import Answer, Call

LOAD_OPTIONS = frozenset(row["name"] for row in _core.engine_fields())
#: Who may load a model is not yet who may have the server read and write where they like.
_OPERATORS = [row["name"] for row in _core.engine_fields() if row["type"] == "path"]


async def list_models(call: Call) -> Answer:
    entries = await asyncio.to_thread(call.services.registry.entries)
    statuses = call.services.pool.statuses()
    return Answer({"models": [_model(entry, statuses.get(entry.id)) for entry in entries]})


def _model(entry: ModelEntry, status: Status | None) -> dict[str, Any]:
    ready = status is not None and status.state == "ready"
    return {
        "id": entry.id,
        "name": entry.name,
        "type": "gguf",
        "size_bytes": entry.size_bytes,
        "loaded": ready,
        "context_size": status.context_size if status and ready else entry.info.context_train,
        "capabilities": entry.info.capabilities,
        "state": status.state if status else "unloaded",
    }


async def load_model(call: Call) -> Answer:
    """Options are those of the engine's table; the body may be `{}`, null or absent."""
    value, model_id = await call.json(), call.path_params["model_id"]
    options = _load_options(Body({} if value is None else value))
    async with audited(call, "model.load", model_id):
        call.known_caller.require_model(model_id)
        report = await call.services.pool.load(model_id, options)
    return Answer(
        {
            "status": "loaded",
            "model_id": report.model_id,
            "memory_usage_bytes": report.memory_bytes,
            "load_time_ms": report.load_time_ms,
        }
    )


def _load_options(body: Body) -> dict[str, Any]:
    for name in _OPERATORS:
        if body.has(name):
            body.refuse(name, "set in the server's configuration: it is a path")
    return _core.validate_engine_options(body.only(LOAD_OPTIONS))


async def unload_model(call: Call) -> Answer:
    model_id = call.path_params["model_id"]
    async with audited(call, "model.unload", model_id):
        call.known_caller.require_model(model_id)
        await call.services.pool.unload(model_id)
    return Answer({"status": "unloaded", "model_id": model_id})


async def openai_models(call: Call) -> Answer:
    entries = await asyncio.to_thread(call.services.registry.entries)
    return Answer({"object": "list", "data": [_openai_model(entry) for entry in entries]})


async def openai_model(call: Call) -> Answer:
    return Answer(_openai_model(await asyncio.to_thread(call.services.registry.get, call.path_params["model_id"])))


def _openai_model(entry: ModelEntry) -> dict[str, Any]:
    return {"id": entry.id, "object": "model", "created": entry.created, "owned_by": "local"}
