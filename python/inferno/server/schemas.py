"""JSON Schemas of bodies, folded from the tables that check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

from inferno import _core
from inferno.batch.jobs import BatchState, ItemState
from inferno.identity.callers import ROLES
from inferno.request import MAX_CHOICES, MAX_INPUTS, MAX_MESSAGES, MAX_PROMPTS
from inferno.server.dialects import openai, openai_chat, openai_completions
from inferno.server.errors import STATUS
from inferno.telemetry.custom_metrics import KINDS, LABEL, MAX_LABEL_LENGTH, MAX_LABELS, NAME
from inferno.webhooks.endpoints import EVENTS
from inferno.webhooks.outbox import State

Schema: TypeAlias = dict[str, Any]

_TYPES: dict[str, Schema] = {
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "strings": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "integers": {"type": "array", "items": {"type": "integer"}},
    "token_biases": {"type": "object", "additionalProperties": {"type": "number"}},
    "json": {"type": "object"},
}
#: What a row's `max_items` is called for a type.
_COUNT = {"strings": "maxItems", "integers": "maxItems", "token_biases": "maxProperties"}


def field_schema(row: _core.FieldRow, default: Any) -> Schema:
    """One row of an engine table; null stands for the default."""
    schema = {**_TYPES[row["type"]], "description": row["help"]}
    if default is not None:
        schema["default"] = default
    if row["type"] in ("integer", "number"):
        schema |= {"exclusiveMinimum" if row["min_exclusive"] else "minimum": row["min"], "maximum": row["max"]}
    if row["type"] in _COUNT:
        schema[_COUNT[row["type"]]] = row["max_items"]
    if row["type"] == "string":
        schema |= {"enum": [*row["choices"], None]} if row["choices"] else {"maxLength": row["max_length"]}
    # `stop` may be one text, JSON may be given as text; every field may be null.
    schema["type"] = [schema["type"], "null", *(["string"] if row["type"] in ("strings", "json") else [])]
    return schema


def _written(default: Any) -> Any:
    """A default as people write it: the engine's 0.7 is a 32-bit float."""
    return float(f"{default:.7g}") if isinstance(default, float) else default


def sampling(defaults: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, Schema]:
    """All sampling fields, with a dialect's defaults over the table's, and what stands for some of them."""
    return {
        row["name"]: field_schema(row, defaults.get(row["name"], _written(row["default"])))
        for row in _core.sampling_fields()
        if row["name"] not in without
    } | {"response_format": _response_format()}


def _object(required: list[str], **properties: Any) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _nullable(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


_INT: Schema = {"type": "integer"}
_STRING: Schema = {"type": "string"}
_TEXT: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": ["boolean", "null"], "default": False}
_N = _nullable({"type": "integer", "minimum": 1, "maximum": MAX_CHOICES, "default": 1})
_TOKENS = _list({"type": "integer", "minimum": 0}, minItems=1)


def _one_or_many(limit: int) -> Schema:
    """A text, token ids, or a list of either."""
    return {"anyOf": [_TEXT, _TOKENS, _list({"anyOf": [_TEXT, _TOKENS]}, minItems=1, maxItems=limit)]}


# ---- requests ----


def _response_format() -> Schema:
    given = _object(["schema"], name=_nullable(_STRING), strict=_FLAG, schema={"type": "object"})
    kinds: list[Schema] = [_object(["type"], type={"enum": ["text", "json_object"]})]
    kinds.append(_object(["type", "json_schema"], type={"const": "json_schema"}, json_schema=given))
    return {"anyOf": [*kinds, {"type": "null"}]}


def _inference() -> Schema:
    return _object(["model", "prompt"], model=_TEXT, prompt=_TEXT, stream=_FLAG, **sampling({}))


def _openai(defaults: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, Schema]:
    fields = sampling({**openai.DEFAULTS, **defaults}, without)
    options = _object([], include_usage=_FLAG, continuous_usage_stats=_FLAG)
    renamed = {theirs: fields[ours] for theirs, ours in openai.RENAMED.items()}
    return {**fields, **renamed, "n": _N, "stream": _FLAG, "stream_options": _nullable(options)}


def _chat_completion() -> Schema:
    part = _object(["type", "text"], type={"enum": list(openai_chat.TEXT_PARTS)}, text=_STRING)
    content = {"anyOf": [_STRING, _list(part), {"type": "null"}]}
    message = _object(["role"], role={"enum": list(openai_chat.ROLES)}, content=content)
    fields = _openai({"max_tokens": None}, without=("logprobs",))
    return _object(
        ["model", "messages"],
        model=_TEXT,
        messages=_list(message, minItems=1, maxItems=MAX_MESSAGES),
        logprobs=_FLAG,
        top_logprobs=_nullable({"type": "integer", "minimum": 0, "maximum": openai_chat.MAX_TOP_LOGPROBS}),
        max_completion_tokens=fields["max_tokens"],
        **fields,
    )


def _completion() -> Schema:
    fields = _openai({"max_tokens": openai_completions.DEFAULT_MAX_TOKENS})
    fields["max_tokens"]["minimum"] = 0  # with echo
    return _object(["model", "prompt"], model=_TEXT, prompt=_one_or_many(MAX_PROMPTS), echo=_FLAG, **fields)


def _embedding() -> Schema:
    return _object(
        ["model", "input"],
        model=_TEXT,
        input=_one_or_many(MAX_INPUTS),
        encoding_format={"enum": ["float", "base64", None], "default": "float"},
        dimensions=_nullable({"type": "integer", "minimum": 1}),
    )


def _load_options() -> Schema:
    rows = {row["name"]: field_schema(row, None) for row in _core.engine_fields() if row["type"] != "path"}
    return _nullable({"type": "object", "properties": rows})


def _batch() -> Schema:
    row = _object(["prompt"], id=_nullable({"type": "string", "minLength": 1}), prompt=_TEXT, **sampling({}))
    return _object(
        ["model", "requests"],
        model=_TEXT,
        requests=_list(row, minItems=1),
        webhook_url=_nullable(_STRING),
        webhook_secret=_nullable(_TEXT),
        **sampling({}),
    )


def _webhook() -> Schema:
    events = _list({"enum": list(EVENTS)}, minItems=1)
    return _object(["webhook_url", "events"], webhook_url=_TEXT, events=events, secret=_nullable(_TEXT))


def _custom_metric() -> Schema:
    labels = {
        "type": ["object", "null"],
        "maxProperties": MAX_LABELS,
        "propertyNames": {"pattern": f"^{LABEL.pattern}$"},
        "additionalProperties": {"type": "string", "maxLength": MAX_LABEL_LENGTH},
    }
    return _object(
        ["name", "value", "type"],
        name={"type": "string", "pattern": f"^{NAME.pattern}$"},
        value={"type": "number"},
        type={"enum": list(KINDS)},
        labels=labels,
    )


# ---- answers ----

_REASON: Schema = {"enum": ["stop", "length"]}
_USAGE = _object(
    ["prompt_tokens", "completion_tokens", "total_tokens"],
    prompt_tokens=_INT,
    completion_tokens=_INT,
    total_tokens=_INT,
)


def _completion_answer(prefix: str, object_name: str, **choice: Schema) -> Schema:
    choice = {"index": _INT, **choice, "finish_reason": _REASON}
    return _object(
        ["id", "object", "created", "model", "choices", "usage"],
        id={"type": "string", "pattern": f"^{prefix}-"},
        object={"const": object_name},
        created=_INT,
        model=_STRING,
        choices=_list(_object(list(choice), **choice)),
        usage=_USAGE,
    )


def _inference_answer() -> Schema:
    choice = _object(["text", "index", "finish_reason"], text=_STRING, index=_INT, finish_reason=_REASON)
    return _object(
        ["id", "model", "choices", "usage", "created", "processing_time_ms"],
        id={"type": "string", "pattern": "^inf_"},
        model=_STRING,
        choices=_list(choice),
        usage=_USAGE,
        created=_INT,
        processing_time_ms=_INT,
    )


def _embedding_answer() -> Schema:
    vector = {"anyOf": [_list({"type": "number"}), {"type": "string", "contentEncoding": "base64"}]}
    item = _object(["embedding", "index"], object={"const": "embedding"}, embedding=vector, index=_INT)
    usage = _object(["prompt_tokens", "total_tokens"], prompt_tokens=_INT, total_tokens=_INT)
    return _object(["model", "data", "usage"], model=_STRING, data=_list(item), usage=usage)


def _models_answer() -> Schema:
    fields: dict[str, Schema] = {
        "id": _STRING,
        "name": _STRING,
        "type": {"const": "gguf"},
        "size_bytes": _INT,
        "loaded": {"type": "boolean"},
        "context_size": _INT,
        "capabilities": _list({"enum": ["text-generation", "embeddings"]}),
    }
    return _object(["models"], models=_list(_object(list(fields), **fields)))


def _openai_model() -> Schema:
    fields: dict[str, Schema] = {
        "id": _STRING,
        "object": {"const": "model"},
        "created": _INT,
        "owned_by": _STRING,
    }
    return _object(list(fields), **fields)


def _error() -> Schema:
    error = _object(["code", "message"], code={"enum": sorted(STATUS)}, message=_STRING, details={"type": "object"})
    timestamp = {"type": "string", "format": "date-time"}
    return _object(["error", "request_id", "timestamp"], error=error, request_id=_STRING, timestamp=timestamp)


def _health() -> Schema:
    return _object(
        ["status", "version", "uptime_seconds", "models_loaded"],
        status={"const": "healthy"},
        version=_STRING,
        uptime_seconds=_INT,
        models_loaded=_INT,
        devices=_list(_device()),
    )


def _device() -> Schema:
    return _whole(
        name=_STRING,
        description=_STRING,
        kind={"enum": ["gpu", "integrated", "software"]},
        total_bytes=_INT,
        used_bytes=_INT,
    )


_LABELS: Schema = {"type": "object", "additionalProperties": _STRING}


def _whole(**properties: Any) -> Schema:
    """An object that has all its properties."""
    return _object(list(properties), **properties)


def _traces() -> Schema:
    hexadecimal = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
    span = _whole(
        trace_id={"type": "string", "pattern": "^[0-9a-f]{32}$"},
        span_id=hexadecimal,
        parent_span_id=_nullable(hexadecimal),
        operation_name=_STRING,
        start_time={"type": "string", "format": "date-time"},
        duration_ms=_INT,
        status={"enum": ["ok", "error"]},
        attributes={"type": "object"},
    )
    return _whole(traces=_list(span))


def _metric_families() -> Schema:
    sample = _whole(name=_STRING, labels=_LABELS, value={"type": "number"})
    kinds = {"enum": ["counter", "gauge", "histogram"]}
    return _whole(metrics=_list(_whole(name=_STRING, type=kinds, help=_STRING, samples=_list(sample))))


def _metrics_snapshot() -> Schema:
    counts = {
        "requests": _whole(total=_INT, failed=_INT),
        "tokens": _whole(prompt=_INT, completion=_INT),
        "running": _INT,
        "waiting": _INT,
        "kv_tokens": _whole(used=_INT, total=_INT),
    }
    percentile = {"type": ["number", "null"]}
    latency = _whole(p50=percentile, p95=percentile)
    return _whole(
        timestamp={"type": "string", "format": "date-time"},
        uptime_seconds={"type": "number"},
        **counts,
        time_to_first_token_ms=latency,
        inter_token_latency_ms=latency,
        batches=_nullable(_whole(**dict.fromkeys(get_args(BatchState), _INT))),
        batch_items=_nullable(_whole(**dict.fromkeys(get_args(ItemState), _INT))),
        models=_list(_whole(id=_STRING, state=_STRING, **counts)),
    )


def _service_status() -> Schema:
    model = _whole(
        id=_STRING,
        state=_STRING,
        progress={"type": "number"},
        context_size=_INT,
        memory_bytes=_INT,
        gpu_layers=_INT,
        device_bytes={"type": "object", "additionalProperties": _INT},
        active=_INT,
        restarts=_INT,
    )
    return _whole(
        status={"enum": ["serving", "draining"]},
        version=_STRING,
        uptime_seconds=_INT,
        devices=_list(_device()),
        models=_list(model),
    )


def _token() -> Schema:
    times = {"type": "string", "format": "date-time"}
    user = {
        "id": _STRING,
        "username": _STRING,
        "email": _nullable(_STRING),
        "role": {"enum": sorted(ROLES)},
        "last_login": _nullable(times),
    }
    fields: dict[str, Schema] = {
        "token": _STRING,
        "access_token": _STRING,
        "token_type": {"const": "Bearer"},
        "expires_in": _INT,
        "expires_at": times,
        "refresh_token": _STRING,
        "user": _object(list(user), **user),
    }
    return _object(list(fields), **fields)


def _batch_status() -> Schema:
    fields: dict[str, Schema] = {
        "batch_id": {"type": "string", "pattern": "^batch_"},
        "status": {"enum": list(get_args(BatchState))},
        "completed": _INT,
        "failed": _INT,
        "cancelled": _INT,
        "total": _INT,
        "results_url": _STRING,
        "model": _STRING,
        "created": _INT,
        "finished": _nullable(_INT),
        "error": _nullable({"type": "object"}),
    }
    return _object(list(fields), **fields)


def _batch_results() -> Schema:
    choice = _object(["text", "index", "finish_reason"], text=_STRING, index=_INT, finish_reason=_REASON)
    item: dict[str, Schema] = {
        "id": _STRING,
        "status": {"enum": ["completed", "failed", "cancelled"]},
        "choices": _list(choice),
        "usage": _nullable(_USAGE),
        "processing_time_ms": _nullable(_INT),
        "error": _nullable({"type": "object"}),
    }
    results = _list(_object(list(item), **item))
    return _object(["batch_id", "status", "results"], batch_id=_STRING, status=_STRING, results=results)


def _webhook_answer() -> Schema:
    fields: dict[str, Schema] = {
        "id": _STRING,
        "webhook_url": _STRING,
        "events": _list({"enum": list(EVENTS)}),
        "created": _INT,
        "disabled": _nullable(_STRING),
    }
    return _object(list(fields), secret=_STRING, **fields)


def _delivery() -> Schema:
    fields: dict[str, Schema] = {
        "id": _STRING,
        "webhook_id": _nullable(_STRING),
        "event": {"enum": list(EVENTS)},
        "state": {"enum": list(get_args(State))},
        "attempts": _INT,
        "created": _STRING,
        "next_attempt": _nullable(_STRING),
        "last_status": _nullable(_INT),
        "last_error": _nullable(_STRING),
    }
    return _object(list(fields), **fields)


def components() -> dict[str, Schema]:
    """Every schema by name."""
    model = _openai_model()
    message = _object(["role", "content"], role={"const": "assistant"}, content=_STRING)
    loaded = {"status": {"const": "loaded"}, "model_id": _STRING, "memory_usage_bytes": _INT, "load_time_ms": _INT}
    return {
        "Inference": _inference(),
        "ChatCompletion": _chat_completion(),
        "Completion": _completion(),
        "Embedding": _embedding(),
        "LoadOptions": _load_options(),
        "InferenceAnswer": _inference_answer(),
        "ChatCompletionAnswer": _completion_answer("chatcmpl", "chat.completion", message=message),
        "CompletionAnswer": _completion_answer("cmpl", "text_completion", text=_STRING),
        "EmbeddingAnswer": _embedding_answer(),
        "Batch": _batch(),
        "BatchAccepted": _object(
            ["batch_id", "status", "total_requests", "created"],
            batch_id=_STRING,
            status=_STRING,
            total_requests=_INT,
            created=_INT,
        ),
        "BatchStatus": _batch_status(),
        "Batches": _object(["batches"], batches=_list(_batch_status())),
        "BatchResults": _batch_results(),
        "Webhook": _webhook(),
        "WebhookAnswer": _webhook_answer(),
        "Webhooks": _object(["webhooks"], webhooks=_list(_webhook_answer())),
        "WebhookDeleted": _object(["id", "deleted"], id=_STRING, deleted={"const": True}),
        "WebhookTest": _object(["id", "delivery", "status"], id=_STRING, delivery=_STRING, status=_STRING),
        "Delivery": _delivery(),
        "Deliveries": _object(["deliveries"], deliveries=_list(_delivery())),
        "Health": _health(),
        "Login": _object(["username", "password"], username=_TEXT, password=_TEXT),
        "Refresh": _object(["refresh_token"], refresh_token=_TEXT),
        "Token": _token(),
        "Status": _object(["status"], status=_STRING),
        "Models": _models_answer(),
        "Loaded": _object(list(loaded), **loaded),
        "Unloaded": _object(["status", "model_id"], status={"const": "unloaded"}, model_id=_STRING),
        "CustomMetric": _custom_metric(),
        "CustomMetricRecorded": _whole(
            status={"const": "recorded"}, name=_STRING, type=_STRING, value={"type": "number"}, labels=_LABELS
        ),
        "MetricFamilies": _metric_families(),
        "MetricsSnapshot": _metrics_snapshot(),
        "Traces": _traces(),
        "ServiceStatus": _service_status(),
        "OpenAIModel": model,
        "OpenAIModels": _object(["object", "data"], object={"const": "list"}, data=_list(model)),
        "Error": _error(),
    }
