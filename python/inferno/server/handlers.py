"""What each route does. A handler reads, asks the rooms below, and answers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from inferno import _core, errors
from inferno.models.registry import ModelEntry
from inferno.request import Finish, Request, Result, Usage
from inferno.server.body import Body
from inferno.server.call import Answer, Call
from inferno.server.dialects import native, openai, openai_chat, openai_completions
from inferno.server.dialects.base import Renderer
from inferno.server.sse import EventStream
from inferno.telemetry.metrics import CONTENT_TYPE

# ---- health and models ----


async def health(call: Call) -> Answer:
    services = call.services
    loaded = [status for status in services.pool.statuses().values() if status.state == "ready"]
    return Answer(
        {
            "status": "healthy",
            "version": services.version,
            "uptime_seconds": int(time.monotonic() - services.started),
            "models_loaded": len(loaded),
        }
    )


async def livez(call: Call) -> Answer:
    return Answer({"status": "alive"})


async def readyz(call: Call) -> Answer:
    await call.services.pool.ready()
    return Answer({"status": "ready"})


async def list_models(call: Call) -> Answer:
    statuses = call.services.pool.statuses()
    models = []
    for entry in call.services.registry.entries():
        status = statuses.get(entry.id)
        ready = status is not None and status.state == "ready"
        models.append(
            {
                "id": entry.id,
                "name": entry.name,
                "type": "gguf",
                "size_bytes": entry.size_bytes,
                "loaded": ready,
                "context_size": status.context_size if status and ready else entry.info.context_train,
                "capabilities": entry.info.capabilities,
                "state": status.state if status else "unloaded",
            }
        )
    return Answer({"models": models})


async def load_model(call: Call) -> Answer:
    value = await call.json()
    body = Body({} if value is None else value)
    names = frozenset(row["name"] for row in _core.engine_fields())
    options = _core.validate_engine_options(body.only(names))
    report = await call.services.pool.load(call.path_params["model_id"], options)
    return Answer(
        {
            "status": "loaded",
            "model_id": report.model_id,
            "memory_usage_bytes": report.memory_bytes,
            "load_time_ms": report.load_time_ms,
        }
    )


async def unload_model(call: Call) -> Answer:
    model_id = call.path_params["model_id"]
    await call.services.pool.unload(model_id)
    return Answer({"status": "unloaded", "model_id": model_id})


def _openai_model(entry: ModelEntry) -> dict[str, Any]:
    return {"id": entry.id, "object": "model", "created": entry.created, "owned_by": "local"}


async def openai_models(call: Call) -> Answer:
    entries = call.services.registry.entries()
    return Answer({"object": "list", "data": [_openai_model(entry) for entry in entries]})


async def openai_model(call: Call) -> Answer:
    return Answer(_openai_model(call.services.registry.get(call.path_params["model_id"])))


# ---- text ----


async def inference(call: Call) -> Answer | None:
    body = await call.body()
    request = native.parse(body)
    return await generate(call, request, native.NativeRenderer(request), native.wants_stream(body))


async def inference_stream(call: Call) -> Answer | None:
    body = await call.body()
    native.wants_stream(body)  # its type is checked; the path decides
    request = native.parse(body)
    return await generate(call, request, native.NativeRenderer(request), True)


async def chat_completions(call: Call) -> Answer | None:
    body = await call.body()
    request, stream = openai_chat.parse(body), openai.parse_stream(body)
    return await generate(call, request, openai_chat.ChatRenderer(request, stream, fingerprint(call)), stream.stream)


async def completions(call: Call) -> Answer | None:
    body = await call.body()
    request, stream = openai_completions.parse(body), openai.parse_stream(body)
    echo = openai_completions.echo(body)
    renderer = openai_completions.CompletionRenderer(request, stream, fingerprint(call), echo)
    return await generate(call, request, renderer, stream.stream)


def fingerprint(call: Call) -> str:
    """Changes when the program does, as clients expect of `system_fingerprint`."""
    return "fp_" + hashlib.sha256(call.services.version.encode()).hexdigest()[:10]


async def generate(call: Call, request: Request, renderer: Renderer, stream: bool) -> Answer | None:
    """The one way from a Request to an answer, whatever the dialect."""
    request = msgspec.structs.replace(
        request,
        timeout_s=call.services.settings.server.request_timeout_s,
        cache_salt=call.caller.salt if call.caller else 0,
    )
    started = time.perf_counter()
    try:
        async with call.services.pool.lease(request.model) as lease:
            generation = await lease.engine.submit(request)
            if stream:
                ends = await EventStream(call, generation, renderer, started).run()
                _count(call, request.model, started, [end.usage for end in ends])
                return None
            result = await call.unless_disconnected(generation.result())
    except errors.InfernoError as error:
        _count_failure(call, request.model, error)
        raise
    _observe(call, result)
    _count(call, request.model, started, [result.usage])
    return Answer(renderer.whole(result, round((time.perf_counter() - started) * 1000)))


def _observe(call: Call, result: Result) -> None:
    for choice in result.choices:
        call.services.metrics.observe_finish(Finish(0, choice.finish_reason, choice.usage, choice.timings))


def _count(call: Call, model: str, started: float, usages: list[Usage]) -> None:
    metrics = call.services.metrics
    metrics.requests.labels(model).inc()
    metrics.duration.observe(time.perf_counter() - started)
    for usage in usages:
        metrics.observe_usage(model, usage)


def _count_failure(call: Call, model: str, error: errors.InfernoError) -> None:
    # A label for whatever a client calls a model would let it fill the memory.
    known = "other" if isinstance(error, errors.ModelNotFound) else model
    call.services.metrics.failures.labels(known, error.code).inc()


# ---- vectors ----


async def embeddings(call: Call) -> Answer:
    body = await call.body()
    request, encoding, dimensions = native.parse_embeddings(body)
    request = msgspec.structs.replace(request, timeout_s=call.services.settings.server.request_timeout_s)
    started = time.perf_counter()
    async with call.services.pool.lease(request.model) as lease:
        if dimensions is not None and dimensions > lease.engine.info.n_embd:
            body.refuse("dimensions", f"at most {lease.engine.info.n_embd}")
        result = await call.unless_disconnected(lease.engine.embed(request))
    _count(call, request.model, started, [result.usage])
    return Answer(native.embeddings_json(result, encoding, dimensions))


# ---- for operators ----


async def metrics(call: Call) -> Answer:
    pool = call.services.pool
    statuses = pool.statuses()
    loaded = [model_id for model_id, status in statuses.items() if status.state == "ready"]
    restarts: Mapping[str, int] = {model_id: status.restarts for model_id, status in statuses.items()}
    return Answer(call.services.metrics.render(await pool.stats(), loaded, restarts), media_type=CONTENT_TYPE)
