"""The route table."""

from __future__ import annotations

import msgspec

from inferno.server.endpoints import (
    auth,
    batch,
    embeddings,
    health,
    metrics,
    models,
    openapi,
    status,
    text,
    traces,
    webhooks,
)
from inferno.server.route import RouteSpec

#: Routes that exist once, in OpenAI's shape.
OPENAI = (
    RouteSpec("GET", "/v1/models", "models:read", models.openai_models, "List models"),
    RouteSpec("GET", "/v1/models/{model_id:path}", "models:read", models.openai_model, "Retrieve a model"),
    RouteSpec("POST", "/v1/chat/completions", "inference", text.chat_completions, "Answer a conversation"),
    RouteSpec("POST", "/v1/completions", "inference", text.completions, "Continue a text"),
    RouteSpec("POST", "/v1/embeddings", "inference", embeddings.embeddings, "Embed texts"),
)
#: Routes of the API document; each is also there under /v1, unless OpenAI has a route of that name.
NATIVE = (
    RouteSpec("GET", "/health", "public", health.health, "Is the service up?"),
    RouteSpec("GET", "/livez", "public", health.livez, "Is the process alive?"),
    RouteSpec("GET", "/readyz", "public", health.readyz, "Do all loaded models answer?"),
    RouteSpec("GET", "/models", "models:read", models.list_models, "List models"),
    RouteSpec("POST", "/models/{model_id:path}/load", "models:write", models.load_model, "Load a model"),
    RouteSpec("POST", "/models/{model_id:path}/unload", "models:write", models.unload_model, "Unload a model"),
    RouteSpec("POST", "/inference", "inference", text.inference, "Continue a prompt"),
    RouteSpec("POST", "/inference/stream", "inference", text.inference_stream, "Continue a prompt, as a stream"),
    RouteSpec("POST", "/embeddings", "inference", embeddings.embeddings, "Embed texts"),
    RouteSpec("POST", "/batch", "batch", batch.submit, "Submit a batch"),
    RouteSpec("GET", "/batch", "batch", batch.list_batches, "List batches"),
    RouteSpec("GET", "/batch/{batch_id}", "batch", batch.status, "Status of a batch"),
    RouteSpec("GET", "/batch/{batch_id}/results", "batch", batch.results, "Results of a batch"),
    RouteSpec("POST", "/batch/{batch_id}/cancel", "batch", batch.cancel, "Cancel a batch"),
    RouteSpec("DELETE", "/batch/{batch_id}", "batch", batch.cancel, "Cancel a batch"),
    RouteSpec("POST", "/webhooks", "webhooks", webhooks.create, "Register a webhook"),
    RouteSpec("GET", "/webhooks", "webhooks", webhooks.list_all, "List webhooks"),
    RouteSpec("GET", "/webhooks/{webhook_id}", "webhooks", webhooks.show, "Show a webhook"),
    RouteSpec("DELETE", "/webhooks/{webhook_id}", "webhooks", webhooks.remove, "Delete a webhook"),
    RouteSpec("POST", "/webhooks/{webhook_id}/test", "webhooks", webhooks.test, "Send a test message"),
    RouteSpec("POST", "/webhooks/{webhook_id}/secret", "webhooks", webhooks.rotate, "Set a new secret"),
    RouteSpec("GET", "/webhooks/{webhook_id}/deliveries", "webhooks", webhooks.deliveries, "List messages"),
    RouteSpec("POST", "/webhooks/deliveries/{delivery_id}/replay", "webhooks", webhooks.replay, "Send a message again"),
    RouteSpec("GET", "/metrics", "metrics:read", metrics.metrics, "Prometheus metrics", limited=False),
    RouteSpec("GET", "/metrics/json", "metrics:read", metrics.metrics_json, "The metrics as JSON"),
    RouteSpec("GET", "/metrics/snapshot", "metrics:read", metrics.metrics_snapshot, "The metrics for a dashboard"),
    RouteSpec("POST", "/metrics/custom", "metrics:write", metrics.custom_metric, "Record a metric of your own"),
    RouteSpec("GET", "/traces", "traces:read", traces.traces, "Spans of recent inferences, newest first"),
    RouteSpec("GET", "/status", "metrics:read", status.status, "The state of the service and its models"),
    RouteSpec("POST", "/auth/login", "public", auth.login, "Log in for a token"),
    RouteSpec("POST", "/auth/refresh", "public", auth.refresh, "Renew a login"),
    RouteSpec("POST", "/auth/logout", "authenticated", auth.logout, "Revoke the token"),
    RouteSpec("GET", "/openapi.json", "public", openapi.openapi_json, "This API, described"),
)


def route_table() -> tuple[RouteSpec, ...]:
    """Every route, in the order in which they are tried."""
    taken = {(route.method, route.path) for route in OPENAI}
    aliases = (msgspec.structs.replace(route, path="/v1" + route.path) for route in NATIVE)
    # /v1/models/{model_id} takes any rest of a path, so it comes last.
    return (*NATIVE, *(alias for alias in aliases if (alias.method, alias.path) not in taken), *OPENAI)
