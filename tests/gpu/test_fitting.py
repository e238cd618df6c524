"""As many layers as fit, and what is said when something does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from inferno import LLM, _core, errors

from tests.gpu.conftest import ALL_LAYERS, opened

if TYPE_CHECKING:
    from inferno._core import DeviceRow

MIB = 1 << 20


def placed(path: Path, **options: Any) -> tuple[int, int]:
    """Layers and bytes on devices."""
    memory = _core.estimate_memory(str(path), {"context_size": 256, "parallel": 2, **options})
    return memory["gpu_layers"], sum(memory["device_bytes"].values())


def test_all_layers_where_there_is_room(smollm2: Path, device: DeviceRow) -> None:
    assert placed(smollm2, device=device["name"])[0] == ALL_LAYERS


@pytest.mark.parametrize("room_mb", [40, 100, 10**6])
def test_as_many_as_fit(smollm2: Path, device: DeviceRow, room_mb: int) -> None:
    _, needed = placed(smollm2, device=device["name"])
    free = next(row["free_bytes"] for row in _core.devices() if row["name"] == device["name"])
    room = min(room_mb * MIB, free)
    reserve = (free - room) // MIB
    layers, taken = placed(smollm2, device=device["name"], device_reserve_mb=reserve)
    assert (layers == ALL_LAYERS) == (needed + reserve * MIB <= free)
    assert taken + reserve * MIB <= free
    if 0 < layers < ALL_LAYERS:
        _, more = placed(smollm2, device=device["name"], gpu_layers=layers + 1)
        assert more + (reserve + 32) * MIB > free  # a driver's free memory moves a little


def test_no_room_means_the_processor(smollm2: Path, device: DeviceRow) -> None:
    with opened(smollm2, device=device["name"], device_reserve_mb=1 << 20) as llm:
        assert (llm.placement.gpu_layers, llm.placement.device_bytes) == (0, {})
        assert llm.generate("The capital of France is", max_tokens=1, temperature=0).text == " Paris"


@pytest.mark.parametrize("parallel", [40, 128], ids=["in all", "in one piece"])
def test_too_much_is_refused_before_anything_is_loaded(
    smollm2: Path, device: DeviceRow, monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    """More than the device has, asked for by number."""
    monkeypatch.setattr("inferno.engine.fitting.physical_memory", lambda: 1 << 50)
    progress: list[float] = []
    with pytest.raises(errors.ServiceUnavailable) as refused:
        LLM(
            smollm2,
            device=device["name"],
            gpu_layers=ALL_LAYERS,
            context_size=8192,
            parallel=parallel,
            flash_attention="on",
            progress=lambda fraction: progress.append(fraction) is None,
        )
    assert progress == []
    message = refused.value.message
    assert message.startswith(f"Device {device['name']} ")
    assert re.search(r"\d+ MiB", message)
    assert message.endswith("a smaller context_size or parallel, or kv_offload = false.")


@pytest.mark.parametrize(
    ("options", "field", "sentence"),
    [
        ({"device": "CUDA7"}, "device", "There is no device CUDA7; there is {name}."),
        ({"device": "{name},{name}"}, "device", "The device {name} is named twice."),
        ({"device": " , "}, "device", "device names no device."),
        ({"tensor_split": "1,1"}, "tensor_split", "tensor_split has 2 shares for 1 device."),
        ({"tensor_split": "0"}, "tensor_split", "tensor_split gives no device anything."),
        ({"split_mode": "row"}, "split_mode", "split_mode row is beyond what {name} can do."),
        ({"split_mode": "none", "main_gpu": 1}, "main_gpu", "main_gpu is 1, and there are 1 devices."),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    tiny_model: Path, device: DeviceRow, options: dict[str, Any], field: str, sentence: str
) -> None:
    name = device["name"]
    filled = {key: value.format(name=name) if isinstance(value, str) else value for key, value in options.items()}
    with pytest.raises(errors.InvalidRequest) as refused:
        LLM(tiny_model, **{"device": name, **filled})
    assert refused.value.message == sentence.format(name=name)
    assert refused.value.field == field


def test_one_device_takes_its_share(smollm2: Path, device: DeviceRow) -> None:
    assert placed(smollm2, device=device["name"], tensor_split="1")[0] == ALL_LAYERS
    assert placed(smollm2, device=device["name"], split_mode="none")[0] == ALL_LAYERS


def test_a_software_device_is_used_only_by_name(smollm2: Path, device: DeviceRow) -> None:
    if device["kind"] != "software":
        pytest.skip("the device is a real one")
    assert placed(smollm2)[0] == 0


def test_the_command_line(tiny_model: Path, device: DeviceRow) -> None:
    listed = _command("gpu", "list")
    assert listed.returncode == 0
    assert device["name"] in listed.stdout
    refused = _command("run", str(tiny_model), "-p", "x", "--device", "Vulkan99")
    assert refused.returncode == 1
    assert refused.stderr == f"error: There is no device Vulkan99; there is {device['name']}.\n"


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inferno.cli.main", *arguments], capture_output=True, text=True, check=False
    )
