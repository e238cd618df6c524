"""The OpenAPI 3.1 document, folded from the route table and the engine's field tables."""

from __future__ import annotations

from typing import Any

from inferno import _core
from inferno.request import MAX_CHOICES, MAX_INPUTS, MAX_MESSAGES, MAX_PROMPTS
from inferno.server.errors import STATUS
from inferno.server.routes import RouteSpec, route_table

_TYPES: dict[str, dict[str, Any]] = {
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "strings": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "integers": {"type": "array", "items": {"type": "integer"}},
    "token_biases": {"type": "object", "additionalProperties": {"type": "number"}},
}


def field_schema(row: _core.FieldRow) -> dict[str, Any]:
    """One row of an engine table as JSON Schema; null stands for the default."""
    schema = {"description": row["help"], **_TYPES[row["type"]]}
    if row["type"] in ("integer", "number"):
        schema["exclusiveMinimum" if row["min_exclusive"] else "minimum"] = row["min"]
        schema["maximum"] = row["max"]
    if row["type"] in ("strings", "integers"):
        schema["maxItems"] = row["max_items"]
    if row["type"] == "token_biases":
        schema["maxProperties"] = row["max_items"]
    if row["type"] == "string":
        schema["maxLength"] = row["max_length"]
    if row["name"] == "stop":
        return {"description": row["help"], "anyOf": [{"type": "string"}, _TYPES["strings"], {"type": "null"}]}
    schema["type"] = [schema["type"], "null"]
    return schema


def _sampling(*renamed_away: str) -> dict[str, Any]:
    return {row["name"]: field_schema(row) for row in _core.sampling_fields() if row["name"] not in renamed_away}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


_TEXT = {"type": "string", "minLength": 1}
_TOKENS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_FLAG = {"type": ["boolean", "null"]}
_N = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_CHOICES}
_PARTS = {
    "type": "array",
    "items": _object(["type", "text"], type={"enum": ["text", "input_text"]}, text={"type": "string"}),
}
_STREAM_OPTIONS = {
    "type": ["object", "null"],
    "properties": {"include_usage": _FLAG},
}


def _bodies() -> dict[str, dict[str, Any]]:
    message = _object(
        ["role"],
        role={"enum": ["system", "developer", "user", "assistant", "tool"]},
        content={"anyOf": [{"type": "string"}, _PARTS, {"type": "null"}]},
    )
    return {
        "Inference": _object(["model", "prompt"], model=_TEXT, prompt=_TEXT, stream=_FLAG, **_sampling()),
        "ChatCompletion": _object(
            ["model", "messages"],
            model=_TEXT,
            messages={"type": "array", "items": message, "minItems": 1, "maxItems": MAX_MESSAGES},
            stream=_FLAG,
            stream_options=_STREAM_OPTIONS,
            n=_N,
            logprobs=_FLAG,
            top_logprobs={"type": ["integer", "null"], "minimum": 0, "maximum": 20},
            max_completion_tokens=_sampling()["max_tokens"],
            **_sampling("logprobs"),
        ),
        "Completion": _object(
            ["model", "prompt"],
            model=_TEXT,
            prompt={
                "anyOf": [
                    _TEXT,
                    _TOKENS,
                    {"type": "array", "items": {"anyOf": [_TEXT, _TOKENS]}, "minItems": 1, "maxItems": MAX_PROMPTS},
                ]
            },
            stream=_FLAG,
            stream_options=_STREAM_OPTIONS,
            n=_N,
            echo=_FLAG,
            **_sampling(),
        ),
        "Embedding": _object(
            ["model", "input"],
            model=_TEXT,
            input={
                "anyOf": [
                    _TEXT,
                    _TOKENS,
                    {"type": "array", "items": {"anyOf": [_TEXT, _TOKENS]}, "minItems": 1, "maxItems": MAX_INPUTS},
                ]
            },
            encoding_format={"enum": ["float", "base64", None]},
            dimensions={"type": ["integer", "null"], "minimum": 1},
        ),
        "LoadOptions": {
            "type": ["object", "null"],
            "properties": {row["name"]: field_schema(row) for row in _core.engine_fields()},
        },
        "Error": _object(
            ["error", "request_id", "timestamp"],
            error=_object(
                ["code", "message"],
                code={"enum": sorted(STATUS)},
                message={"type": "string"},
                details={"type": "object"},
            ),
            request_id={"type": "string"},
            timestamp={"type": "string", "format": "date-time"},
        ),
    }


#: Last part of a path -> the schema of its body.
_BODY_OF = {
    "/inference": "Inference",
    "/inference/stream": "Inference",
    "/chat/completions": "ChatCompletion",
    "/completions": "Completion",
    "/embeddings": "Embedding",
    "/models/{model_id}/load": "LoadOptions",
}


def _operation(route: RouteSpec, path: str) -> dict[str, Any]:
    error = {
        "description": "An error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    media = "text/plain" if path.endswith("/metrics") else "application/json"
    content: dict[str, Any] = {media: {}}
    if "inference" in path or "completions" in path:
        content["text/event-stream"] = {}
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{path}".replace("/", "_").replace("{", "").replace("}", ""),
        "summary": route.summary,
        "responses": {"200": {"description": "Success", "content": content}, "default": error},
        "security": [] if route.permission == "public" else [{"key": []}],
    }
    body = _BODY_OF.get(path.removeprefix("/v1"))
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {
            "required": body != "LoadOptions",
            "content": {"application/json": {"schema": schema}},
        }
    if "{model_id}" in path:
        parameter = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [parameter]
    return operation


def document(version: str) -> dict[str, Any]:
    """The whole API, JSON-serialisable."""
    paths: dict[str, dict[str, Any]] = {}
    for route in route_table():
        path = route.path.replace(":path", "")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inferno", "version": version, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": _bodies(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
