"""The OpenAPI 3.1 document, folded from the routes and the schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from inferno.server import schemas
from inferno.server.errors import STATUS
from inferno.server.route import RouteSpec

#: Where another method of a path answers with something else.
_ANSWERS = {
    ("GET", "/v1/models"): "OpenAIModels",
    ("GET", "/batch"): "Batches",
    ("GET", "/v1/batch"): "Batches",
    ("GET", "/webhooks"): "Webhooks",
    ("GET", "/v1/webhooks"): "Webhooks",
    ("DELETE", "/webhooks/{webhook_id}"): "WebhookDeleted",
    ("DELETE", "/v1/webhooks/{webhook_id}"): "WebhookDeleted",
}
#: Path, without /v1 -> schema of the request's body and of the answer's. None: no JSON.
_BODIES: dict[str, tuple[str | None, str | None]] = {
    "/health": (None, "Health"),
    "/livez": (None, "Status"),
    "/readyz": (None, "Status"),
    "/models": (None, "Models"),
    "/models/{model_id}": (None, "OpenAIModel"),
    "/models/{model_id}/load": ("LoadOptions", "Loaded"),
    "/models/{model_id}/unload": (None, "Unloaded"),
    "/inference": ("Inference", "InferenceAnswer"),
    "/inference/stream": ("Inference", None),
    "/chat/completions": ("ChatCompletion", "ChatCompletionAnswer"),
    "/completions": ("Completion", "CompletionAnswer"),
    "/embeddings": ("Embedding", "EmbeddingAnswer"),
    "/auth/login": ("Login", "Token"),
    "/auth/refresh": ("Refresh", "Token"),
    "/auth/logout": (None, "Status"),
    "/batch": ("Batch", "BatchAccepted"),
    "/batch/{batch_id}": (None, "BatchStatus"),
    "/batch/{batch_id}/results": (None, "BatchResults"),
    "/batch/{batch_id}/cancel": (None, "BatchStatus"),
    "/webhooks": ("Webhook", "WebhookAnswer"),
    "/webhooks/{webhook_id}": (None, "WebhookAnswer"),
    "/webhooks/{webhook_id}/test": (None, "WebhookTest"),
    "/webhooks/{webhook_id}/secret": (None, "WebhookAnswer"),
    "/webhooks/{webhook_id}/deliveries": (None, "Deliveries"),
    "/webhooks/deliveries/{delivery_id}/replay": (None, "Delivery"),
    "/metrics": (None, None),
    "/metrics/json": (None, "MetricFamilies"),
    "/metrics/snapshot": (None, "MetricsSnapshot"),
    "/metrics/custom": ("CustomMetric", "CustomMetricRecorded"),
    "/traces": (None, "Traces"),
    "/status": (None, "ServiceStatus"),
    "/openapi.json": (None, None),
}
#: Method and path, without /v1 -> parameters beside those of the path.
_PARAMETERS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("GET", "/health"): [
        {"name": "details", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 1, "default": 0}}
    ],
    ("GET", "/traces"): [
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        }
    ],
    ("POST", "/batch"): [
        {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255}}
    ],
}
_STREAMS = ("/inference", "/inference/stream", "/chat/completions", "/completions")


def document(routes: Iterable[RouteSpec], version: str) -> dict[str, Any]:
    """The whole API, JSON-serialisable."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.path.replace(":path", "")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inferno", "version": version, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": schemas.components(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: RouteSpec, path: str) -> dict[str, Any]:
    short = path.removeprefix("/v1")
    body, answer = _BODIES[short]
    operation: dict[str, Any] = {
        "operationId": _identifier(f"{route.method.lower()}{path}"),
        "summary": route.summary,
        "responses": {
            "200": {"description": "Success", "content": _content(short, _ANSWERS.get((route.method, path), answer))},
            **_errors(route),
        },
        "security": [] if route.permission == "public" else [{"key": []}],
    }
    if route.deprecation is not None:
        operation["deprecated"] = True
    if body is not None and route.method == "POST":
        operation["requestBody"] = {"required": body != "LoadOptions", "content": _json(body)}
    if parameters := [*map(_path_parameter, re.findall(r"{(\w+)}", path)), *_PARAMETERS.get((route.method, short), ())]:
        operation["parameters"] = parameters
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _content(short: str, answer: str | None) -> dict[str, Any]:
    if short == "/metrics":
        return {"text/plain": {}}
    content: dict[str, Any] = _json(answer) if answer else {}
    if short == "/openapi.json":
        content["application/json"] = {}
    if short in _STREAMS:
        content["text/event-stream"] = {}
    return content


def _errors(route: RouteSpec) -> dict[str, Any]:
    """Statuses that a route may answer with. Of the public ones those that take a body check a password or a token."""
    never: set[int] = set()
    if route.permission == "public":
        never = {404} if route.method == "POST" else {401, 404, 413, 415, 429}
    statuses = sorted(set(STATUS.values()) - never)
    return {str(status): {"description": _codes(status), "content": _json("Error")} for status in statuses}


def _codes(status: int) -> str:
    return ", ".join(code for code, its_status in STATUS.items() if its_status == status)


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _identifier(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text)
