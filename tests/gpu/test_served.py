"""A server whose models are on a device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import MODEL, Server
from tests.gpu.conftest import ALL_LAYERS, PROMPT

if TYPE_CHECKING:
    from inferno._core import DeviceRow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path, device: DeviceRow) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("data")
    arguments = ("--alias", f"{MODEL}={smollm2}", "--device", device["name"], "--parallel", "2")
    running = Server(data_dir, *arguments, "--context-size", "256")
    yield running
    assert running.stop() == 0


@pytest.mark.parametrize("layers", [ALL_LAYERS, ALL_LAYERS // 2, 0])
def test_load_honours_gpu_layers(server: Server, device: DeviceRow, layers: int) -> None:
    body = {"gpu_layers": layers, "context_size": 128, "batch_size": 64}
    loaded = server.client.post(f"/models/{MODEL}/load", json=body).json()
    assert loaded["status"] == "loaded"
    status = server.client.get("/status").json()
    (model,) = (row for row in status["models"] if row["id"] == MODEL)
    assert (model["gpu_layers"], model["context_size"]) == (layers, 128)
    assert model["memory_bytes"] == loaded["memory_usage_bytes"]
    (shown,) = status["devices"]
    assert shown["name"] == device["name"]
    assert shown["used_bytes"] == model["device_bytes"].get(device["name"], 0)
    assert (shown["used_bytes"] > 0) == (layers > 0)
    assert server.client.get("/health?details=1").json()["devices"] == status["devices"]
    metrics = server.client.get("/metrics").text
    assert f'inferno_engine_gpu_layers{{model="{MODEL}"}} {float(layers)}' in metrics
    assert f'inferno_device_memory_bytes{{device="{device["name"]}"}}' in metrics
    answer = server.client.post(
        "/inference", json={"model": MODEL, "prompt": PROMPT, "max_tokens": 2, "temperature": 0}
    )
    assert answer.json()["choices"][0]["text"].startswith(" Paris")


def test_a_wrong_device_leaves_what_is_loaded(server: Server) -> None:
    server.client.post(f"/models/{MODEL}/load", json={"context_size": 128})
    refused = server.client.post(f"/models/{MODEL}/load", json={"device": "CUDA7"})
    assert refused.status_code == 400
    assert refused.json()["error"]["details"]["field"] == "device"
    assert server.client.get("/health").json()["models_loaded"] == 1


def test_a_model_that_computes_is_unloaded_at_once(server: Server) -> None:
    """The worker goes, whatever the device is doing."""
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 100, "temperature": 0, "ignore_eos": True}
    with server.client.stream("POST", "/inference/stream", json=body) as stream:
        next(stream.iter_lines())
    assert server.client.post(f"/models/{MODEL}/unload").json()["status"] == "unloaded"
    assert server.client.get("/health").json()["models_loaded"] == 0
