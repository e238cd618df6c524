"""H1, M1-M7: health, and the models listed, loaded and unloaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from inferno import _core
from inferno.server.openapi import _BODIES
from inferno.server.schemas import components
from inferno.server.services import Services

from tests.fakes import FakeEngine
from tests.server.conftest import make_services, settings


@pytest.mark.acceptance("H1")
def test_health_counts_loaded_models(client: httpx.Client, services: Services) -> None:
    services.started -= 3600
    body = client.get("/health").json()
    assert 3600 <= body.pop("uptime_seconds") < 3700
    assert body == {"status": "healthy", "version": version("inferno-server"), "models_loaded": 0}
    client.post("/models/llama-2-7b/load")
    assert client.get("/v1/health").json()["models_loaded"] == 1


def test_health_shows_devices_when_asked(client: httpx.Client) -> None:
    device = {"name": "Fake0", "description": "A fake", "kind": "gpu", "total_bytes": 8000, "used_bytes": 0}
    assert client.get("/health?details=1").json()["devices"] == [device]
    client.post("/models/llama-2-7b/load")
    assert client.get("/v1/health?details=1").json()["devices"] == [{**device, "used_bytes": 1000}]
    assert "devices" not in client.get("/health?details=0").json()
    refused = client.get("/health?details=2")
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "details")


def test_readyz_asks_the_engines(client: httpx.Client, engine: FakeEngine) -> None:
    client.post("/models/llama-2-7b/load")
    assert client.get("/readyz").json() == {"status": "ready"}
    engine.state = "restarting"
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert client.get("/livez").status_code == 200


def test_readyz_says_when_the_server_stops(client: httpx.Client, services: Services) -> None:
    services.pool.begin_closing()
    response = client.get("/readyz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")


@pytest.mark.acceptance("M1", "M2")
def test_models_are_listed_loaded_or_not(client: httpx.Client) -> None:
    client.post("/models/llama-2-7b/load")
    llama, other = client.get("/models").json()["models"]
    assert llama == {
        "id": "llama-2-7b",
        "name": "Llama-2-7B",
        "type": "gguf",
        "size_bytes": 1234,
        "loaded": True,
        "context_size": 128,
        "capabilities": ["text-generation", "embeddings"],
        "state": "ready",
    }
    assert (other["loaded"], other["context_size"], other["state"]) == (False, 4096, "unloaded")


@pytest.mark.acceptance("O4", "V1")
def test_openai_lists_models(client: httpx.Client) -> None:
    body = client.get("/v1/models").json()
    assert body["object"] == "list"
    assert body["data"][0] == {"id": "llama-2-7b", "object": "model", "created": 1704067200, "owned_by": "local"}


@pytest.mark.acceptance("M7", "O4")
@pytest.mark.parametrize("path", ["/v1/models/org/name", "/v1/models/org%2Fname"])
def test_openai_retrieves_a_model(client: httpx.Client, path: str) -> None:
    assert client.get(path).json()["id"] == "org/name"


@pytest.mark.acceptance("M3")
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b" \n"])
def test_load_needs_no_body(client: httpx.Client, content: bytes) -> None:
    response = client.post("/models/llama-2-7b/load", content=content)
    assert response.json() == {
        "status": "loaded",
        "model_id": "llama-2-7b",
        "memory_usage_bytes": 5000,
        "load_time_ms": 12,
    }


@pytest.mark.acceptance("M4")
def test_what_is_loaded_with_unless_somebody_says_otherwise() -> None:
    defaults = {row["name"]: row["default"] for row in _core.engine_fields()}
    assert defaults["gpu_layers"] == -1  # all; a build without a GPU has none to put anywhere
    assert defaults["batch_size"] == 512
    assert settings().engine == defaults


@pytest.mark.acceptance("M3")
def test_load_passes_options_on(client: httpx.Client, services: Services) -> None:
    body = {"gpu_layers": 32, "context_size": 2048, "batch_size": 512.0, "flash": True, "threads": None}
    assert client.post("/models/llama-2-7b/load", json=body).status_code == 200
    pool: Any = services.pool
    assert pool.loaded["llama-2-7b"] == {"gpu_layers": 32, "context_size": 2048, "batch_size": 512}


@pytest.mark.acceptance("G4", "M4")
@pytest.mark.parametrize(
    "body",
    [
        {"context_size": 0},
        {"context_size": -1},
        {"context_size": "1"},
        {"batch_size": 0},
        {"batch_size": -1},
        {"gpu_layers": -2},
        {"load_mode": "swap"},
        {"load_mode": 1},
        {"split_mode": "half"},
        {"cache_type_k": "q9_9"},
        {"main_gpu": 1},
        {"draft_model": "/srv/other.gguf"},
        {"prefix_store_path": "/srv"},
    ],
)
def test_load_options_out_of_range(client: httpx.Client, body: dict[str, Any]) -> None:
    response = client.post("/models/llama-2-7b/load", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["details"]["field"] == next(iter(body))


@pytest.mark.acceptance("M7")
@pytest.mark.parametrize("path", ["/models/org/name", "/models/org%2Fname", "/v1/models/org%2fname"])
def test_ids_may_have_slashes(client: httpx.Client, path: str) -> None:
    assert client.post(f"{path}/load").json()["model_id"] == "org/name"
    assert client.post(f"{path}/unload").json() == {"status": "unloaded", "model_id": "org/name"}


@pytest.mark.acceptance("M7")
@pytest.mark.parametrize(
    "model_id", ["none", "..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "a%00b", "a%0Ab", "%2e%2e", "", "%F0%9F%98%80"]
)
@pytest.mark.parametrize("verb", ["load", "unload"])
def test_unknown_ids_are_404(client: httpx.Client, model_id: str, verb: str) -> None:
    assert client.post(f"/models/{model_id}/{verb}").status_code == 404


UNKNOWN: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/v1/models/gpt-5", None),
    ("POST", "/models/gpt-5/load", None),
    ("POST", "/models/gpt-5/unload", None),
    ("POST", "/inference", {"prompt": "x"}),
    ("POST", "/inference/stream", {"prompt": "x"}),
    ("POST", "/embeddings", {"input": "x"}),
    ("POST", "/batch", {"requests": [{"prompt": "x"}]}),
    ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}),
    ("POST", "/v1/completions", {"prompt": "x"}),
    ("POST", "/v1/embeddings", {"input": "x"}),
]


@pytest.mark.acceptance("M6")
@pytest.mark.parametrize(("method", "path", "body"), UNKNOWN)
def test_unknown_models_are_told_with_those_there_are(
    client: httpx.Client, method: str, path: str, body: dict[str, Any] | None
) -> None:
    response = client.request(method, path, json=None if body is None else {"model": "gpt-5", **body})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "MODEL_NOT_FOUND")
    assert error["message"] == "Model 'gpt-5' not found"
    assert error["details"] == {"available_models": ["llama-2-7b", "org/name"]}


@pytest.mark.acceptance("M6")
def test_every_route_that_names_a_model_is_among_them() -> None:
    schemas, bodies = components(), {path: body for path, (body, _) in _BODIES.items() if body}
    naming = {path for path, body in bodies.items() if "model" in schemas[body].get("properties", {})}
    naming |= {path for path in _BODIES if "{model_id}" in path}
    tried = {path.removeprefix("/v1").replace("gpt-5", "{model_id}") for _, path, _ in UNKNOWN}
    assert tried == naming


@pytest.mark.acceptance("M5")
def test_unloading_what_is_not_loaded(client: httpx.Client) -> None:
    response = client.post("/models/llama-2-7b/unload")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "MODEL_NOT_LOADED")


@pytest.mark.acceptance("I5")
def test_without_autoload_inference_needs_a_loaded_model(
    connect: Callable[..., httpx.Client], engine: FakeEngine
) -> None:
    services = make_services(engine)
    services.pool.autoload = False  # type: ignore[attr-defined]
    response = connect(services).post("/inference", json={"model": "llama-2-7b", "prompt": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "MODEL_NOT_LOADED")
