"""The route table: path, method, permission, handler. A route without a permission cannot be written."""

from __future__ import annotations

from typing import Literal

import msgspec

from inferno.server import handlers
from inferno.server.call import Handler

Permission = Literal["public", "inference", "models:read", "models:write", "metrics:read"]


class RouteSpec(msgspec.Struct, frozen=True):
    method: str
    path: str
    permission: Permission
    handler: Handler
    summary: str

    @property
    def openai(self) -> bool:
        """True where errors carry OpenAI's keys as well."""
        return self.path.startswith("/v1/")


#: Routes that exist once, in OpenAI's shape.
OPENAI = (
    RouteSpec("GET", "/v1/models", "models:read", handlers.openai_models, "List models"),
    RouteSpec("GET", "/v1/models/{model_id:path}", "models:read", handlers.openai_model, "Retrieve a model"),
    RouteSpec("POST", "/v1/chat/completions", "inference", handlers.chat_completions, "Answer a conversation"),
    RouteSpec("POST", "/v1/completions", "inference", handlers.completions, "Continue a text"),
    RouteSpec("POST", "/v1/embeddings", "inference", handlers.embeddings, "Embed texts"),
)
#: Routes of the API document; each is also there under /v1, unless OpenAI has a route of that name.
NATIVE = (
    RouteSpec("GET", "/health", "public", handlers.health, "Is the service up?"),
    RouteSpec("GET", "/livez", "public", handlers.livez, "Is the process alive?"),
    RouteSpec("GET", "/readyz", "public", handlers.readyz, "Do all loaded models answer?"),
    RouteSpec("GET", "/models", "models:read", handlers.list_models, "List models"),
    RouteSpec("POST", "/models/{model_id:path}/load", "models:write", handlers.load_model, "Load a model"),
    RouteSpec("POST", "/models/{model_id:path}/unload", "models:write", handlers.unload_model, "Unload a model"),
    RouteSpec("POST", "/inference", "inference", handlers.inference, "Continue a prompt"),
    RouteSpec("POST", "/inference/stream", "inference", handlers.inference_stream, "Continue a prompt, as a stream"),
    RouteSpec("POST", "/embeddings", "inference", handlers.embeddings, "Embed texts"),
    RouteSpec("GET", "/metrics", "metrics:read", handlers.metrics, "Prometheus metrics"),
)


def route_table() -> tuple[RouteSpec, ...]:
    taken = {(route.method, route.path) for route in OPENAI}
    aliases = (msgspec.structs.replace(route, path="/v1" + route.path) for route in NATIVE)
    # The longer paths below /v1/models come before the one that takes any rest.
    return (*NATIVE, *(alias for alias in aliases if (alias.method, alias.path) not in taken), *OPENAI)
