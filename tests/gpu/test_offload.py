"""Layers and KV cache on a device: what is computed there is what the processor computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from inferno import LLM, _core, errors
from inferno.request import Choice

from tests.gpu.conftest import ALL_LAYERS, PROMPT, first_tokens, opened, said

if TYPE_CHECKING:
    from inferno._core import DeviceRow


def assert_agree(ours: Choice, theirs: Choice, tolerance: float = 0.4) -> None:
    """The same words, and likely tokens about as likely: the processor rounds activations to 8 bits, devices do not."""
    assert ours.text == theirs.text
    assert ours.logprobs
    assert theirs.logprobs
    for a, b in zip(ours.logprobs, theirs.logprobs, strict=True):
        first, second = ({top.token: top.logprob for top in item.top} for item in (a, b))
        both = sorted(first.keys() & second.keys())
        assert len(both) >= 3
        np.testing.assert_allclose([first[t] for t in both], [second[t] for t in both], atol=tolerance)


@pytest.mark.parametrize("layers", [0, ALL_LAYERS // 2, ALL_LAYERS])
def test_layers_on_the_device_say_the_same(smollm2: Path, device: DeviceRow, on_cpu: Choice, layers: int) -> None:
    options = {"device": device["name"], "gpu_layers": layers}
    with opened(smollm2, **options) as llm:
        assert_agree(first_tokens(llm), on_cpu)
        placement, total = llm.placement, llm.memory_bytes
    assert placement.gpu_layers == layers
    there = placement.device_bytes.get(device["name"], 0)
    assert (there > 0) == (layers > 0)
    weights = smollm2.stat().st_size
    assert there < weights or layers == ALL_LAYERS
    assert there >= weights * layers // ALL_LAYERS // 3
    assert placement.host_bytes == (total if device["kind"] != "gpu" else total - there)


def test_the_estimate_is_what_is_taken(smollm2: Path, device: DeviceRow) -> None:
    options = {"device": device["name"], "gpu_layers": 20, "context_size": 256, "parallel": 2, "threads": 2}
    estimate = _core.estimate_memory(str(smollm2), options)
    with LLM(smollm2, **options) as llm:
        assert llm.placement.device_bytes == pytest.approx(estimate["device_bytes"], rel=0.02)
        assert llm.memory_bytes == pytest.approx(estimate["total_bytes"], rel=0.02)
    assert estimate["gpu_layers"] == 20


@pytest.mark.parametrize(
    "options",
    [
        {"kv_offload": False},
        {"flash_attention": "off"},
        {"flash_attention": "on", "cache_type_k": "q8_0", "cache_type_v": "q8_0"},
    ],
    ids=["kv on the host", "no flash attention", "quantized kv"],
)
def test_where_the_kv_cache_is_and_what_it_is_made_of(
    smollm2: Path, device: DeviceRow, on_cpu: Choice, options: dict[str, Any]
) -> None:
    placed = {"device": device["name"], "gpu_layers": ALL_LAYERS}
    assert_agree(said(smollm2, **placed, **options), on_cpu, tolerance=0.5)
    common = {"context_size": 4096, "parallel": 2, **placed}
    usual, other = (_core.estimate_memory(str(smollm2), {**common, **more}) for more in ({}, options))
    if options.get("kv_offload") is False:
        kv = 2 * 4096 * 2 * 2 * 30 * 3 * 64  # slots, tokens, keys and values, bytes, layers, heads, elements
        assert usual["context_bytes"] == other["context_bytes"] == kv
        assert usual["device_bytes"][device["name"]] - other["device_bytes"][device["name"]] > kv * 0.9
    if "cache_type_k" in options:
        assert other["context_bytes"] == pytest.approx(usual["context_bytes"] * 34 / 64, rel=0.01)


def test_rows_of_the_kv_cache_move_on_the_device(smollm2: Path, device: DeviceRow) -> None:
    """From slot to slot for a prefix that another text is using, out to host memory and back when it lost its slot."""
    prompt = "One, two, three, four, five, six, seven, eight, nine, ten. " * 3 + "One, two, three,"
    placed = {"device": device["name"], "gpu_layers": ALL_LAYERS}
    with opened(smollm2, **placed, parallel=1) as llm:
        assert llm.generate(prompt, max_tokens=2, temperature=0).text == " four,"
        llm.generate("Something else", max_tokens=1)
        assert llm.generate(prompt, max_tokens=2, temperature=0).text == " four,"
        assert llm.stats().fetched_tokens_total >= 64
    with opened(smollm2, **placed, parallel=2) as llm:
        both = llm.generate([prompt, prompt + " four, five,"], max_tokens=2, temperature=0)
        assert [result.text for result in both] == [" four,", " six,"]
        assert llm.stats().cached_tokens_total >= 64


def test_vectors_agree(embed_model: Path, device: DeviceRow) -> None:
    texts = ["a cat", "a kitten sleeps"]
    vectors = []
    for name in ("cpu", device["name"]):
        with LLM(embed_model, device=name) as llm:
            vectors.append(llm.embed(texts))
            assert (llm.placement.gpu_layers > 0) == (name != "cpu")
    assert np.all(np.sum(vectors[0] * vectors[1], axis=1) > 0.999)


def test_a_text_is_cancelled_and_ends_in_time(smollm2: Path, device: DeviceRow) -> None:
    """A device computes its step to the end; then the request is gone and its slot is free."""
    with opened(smollm2, device=device["name"], parallel=1) as llm:
        stream = llm.stream(PROMPT, max_tokens=200, temperature=0, ignore_eos=True)
        next(stream)
        stream.cancel()
        assert stream.result().choices[0].finish_reason == "cancelled"
        with pytest.raises(errors.RequestTimeout):
            llm.generate(PROMPT, max_tokens=200, temperature=0, ignore_eos=True, timeout_s=0.5)
        assert llm.generate(PROMPT, max_tokens=1, temperature=0).text == " Paris"
