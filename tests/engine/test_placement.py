"""Devices, splits, KV types and memory on a build that has the processor alone; `tests/gpu` has the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inferno import LLM, _core, errors

PROMPT = "The capital of France is"


@pytest.fixture(autouse=True, scope="module")
def without_gpus() -> None:
    if _core.gpu_backends():
        pytest.skip("this build can use GPUs")


@pytest.mark.acceptance("M4")
@pytest.mark.parametrize("layers", [-1, 0, 32])
def test_all_layers_stay_with_the_processor(tiny_model: Path, layers: int) -> None:
    with LLM(tiny_model, gpu_layers=layers, context_size=64) as llm:
        assert (llm.placement.gpu_layers, llm.placement.device_bytes) == (0, {})
        assert llm.placement.host_bytes == llm.memory_bytes == llm.stats().memory_bytes
        assert llm.stats().placement == llm.placement


def test_there_are_no_devices() -> None:
    assert _core.devices() == []


@pytest.mark.parametrize(
    ("options", "field", "sentence"),
    [
        (
            {"device": "Vulkan0"},
            "device",
            "There is no device Vulkan0: this build of Inferno computes on the processor alone.",
        ),
        ({"tensor_split": "3,1"}, "tensor_split", "tensor_split has 2 shares for 0 devices."),
        (
            {"tensor_split": "3,x"},
            "tensor_split",
            "tensor_split must be numbers of at least 0 with commas between.",
        ),
        (
            {"tensor_split": "-1"},
            "tensor_split",
            "tensor_split must be numbers of at least 0 with commas between.",
        ),
        (
            {"tensor_split": "1,"},
            "tensor_split",
            "tensor_split must be numbers of at least 0 with commas between.",
        ),
        (
            {"tensor_split": "1", "split_mode": "none"},
            "tensor_split",
            "tensor_split needs a split_mode other than none.",
        ),
        ({"split_mode": "diagonal"}, "split_mode", "split_mode must be one of none, layer, row."),
        ({"split_mode": "none", "main_gpu": 1}, "main_gpu", "main_gpu is 1, and there are 0 devices."),
        ({"main_gpu": 1}, "main_gpu", "main_gpu must be 0 where split_mode is not none."),
        (
            {"cache_type_v": "q8_0", "flash_attention": "off"},
            "cache_type_v",
            "cache_type_v must be f32, f16 or bf16 where flash_attention is off.",
        ),
        (
            {"cache_type_k": "q8_0"},
            "cache_type_k",
            "cache_type_k cannot be q8_0: the model's heads of 16 are no whole blocks of 32.",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    tiny_model: Path, options: dict[str, Any], field: str, sentence: str
) -> None:
    for load in (lambda: LLM(tiny_model, **options), lambda: _core.estimate_memory(str(tiny_model), options)):
        with pytest.raises(errors.InvalidRequest) as refused:
            load()
        assert (refused.value.message, refused.value.field) == (sentence, field)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, 34 / 64),
        ({"cache_type_k": "f32"}, 1.5),
        ({"cache_type_v": "bf16"}, 1.0),
        ({"cache_type_k": "q4_0", "cache_type_v": "q5_1", "flash_attention": "on"}, (18 + 24) / 128),
        ({"flash_attention": "off"}, 1.0),
    ],
)
def test_the_kv_cache_is_of_the_types_asked_for(smollm2: Path, options: dict[str, Any], size: float) -> None:
    common = {"context_size": 256, "parallel": 2}
    usual = _core.estimate_memory(str(smollm2), common)["context_bytes"]
    assert _core.estimate_memory(str(smollm2), {**common, **options})["context_bytes"] == pytest.approx(usual * size)
    with LLM(smollm2, **common, **options) as llm:
        assert llm.generate(PROMPT, max_tokens=2, temperature=0).text.startswith(" Paris")
        assert llm.generate(PROMPT + " Paris", max_tokens=1, temperature=0).usage.cached_tokens > 0


@pytest.mark.parametrize(
    ("available_mb", "hint"),
    [
        (400, r"A context_size of \d+ would fit, or a smaller parallel\."),
        (90, r"A smaller model, or one that is quantized further, would fit\."),
    ],
)
def test_too_much_memory_is_refused_with_numbers(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch, available_mb: int, hint: str
) -> None:
    monkeypatch.setattr("inferno.engine.fitting.physical_memory", lambda: available_mb << 20)
    options: dict[str, Any] = {"context_size": 8192, "parallel": 4, "prefix_store_mb": 0}
    progress: list[float] = []
    with pytest.raises(
        errors.ServiceUnavailable, match=rf"needs \d+ MiB; {available_mb} MiB can be had\. {hint}$"
    ) as no:
        LLM(smollm2, **options, progress=lambda fraction: progress.append(fraction) is None)
    assert progress == []
    if "context_size" in no.value.message:
        fitting = int(no.value.message.partition("context_size of ")[2].split()[0])
        LLM(smollm2, **{**options, "context_size": fitting}).close()
        assert fitting >= 256
