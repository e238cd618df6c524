"""Quantization of a tiny model, through the processes that do it."""

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferno import _core, errors
from inferno.engine import child
from inferno.models.manifest import Manifest, sha256
from inferno.models.quantize import Quantization, Quantized, Verification, perplexity, quantize, reference_text

from tests import gguf_files as gguf


@pytest.fixture
def models(tmp_path: Path, tiny_model: Path) -> Path:
    """Has one model, `tiny`, of float32 weights."""
    path = tmp_path / "models"
    path.mkdir()
    shutil.copy(tiny_model, path / "tiny.gguf")
    return path


def _quantize(models: Path, kind: str = "Q8_0", target: str = "small", **options: Any) -> Quantized:
    known = {
        name: options.pop(name)
        for name in ("allow_requantize", "leave_output", "pure", "threads", "imatrix")
        if name in options
    }
    wanted = Quantization(type=kind, **known)
    return quantize(models / "tiny.gguf", models / f"{target}.gguf", wanted, models, **options)


def _types(path: Path) -> dict[str, str]:
    return {name: kind for name, kind, _, _ in _core.list_tensors(str(path))}


def test_the_weights_are_of_the_type(models: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = _quantize(models, progress=lambda done, total: seen.append((done, total)))
    types = _types(made.path)
    assert types["blk.0.attn_q.weight"] == types["output.weight"] == "q8_0"
    assert types["output_norm.weight"] == "f32"
    assert _core.inspect_model(str(made.path))["quantization"] == "Q8_0"
    assert seen == [(number, len(types)) for number in range(1, len(types) + 1)]
    assert (made.size_bytes, made.sha256) == (made.path.stat().st_size, sha256(made.path))
    assert Manifest(models).hashes() == {"small.gguf": made.sha256}


def test_it_is_compared_with_its_source(models: Path) -> None:
    found = _quantize(models, "Q4_0").verification
    assert found is not None
    assert found.source == perplexity(models / "tiny.gguf", {})[0]
    assert found.result == perplexity(models / "small.gguf", {})[0]
    assert 0.8 < found.ratio < 1.25  # of weights at random any change may be for the better
    assert found.ratio != 1.0
    assert found.tokens == 511  # all but the first of the model's context


def test_a_broken_result_is_not_written(models: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="broken"):
        _quantize(models, "Q4_0", max_ratio=0.5)
    assert sorted(path.name for path in models.iterdir()) == ["tiny.gguf"]
    assert _quantize(models, "Q4_0", max_ratio=None).verification is None


def test_what_is_no_number_is_broken() -> None:
    assert not Verification(source=8.0, result=math.nan, tokens=1).sound(1e9)
    assert not Verification(source=8.0, result=math.inf, tokens=1).sound(1e9)
    assert Verification(source=8.0, result=15.9, tokens=1).sound(2.0)
    assert not Verification(source=8.0, result=16.1, tokens=1).sound(2.0)


def test_a_model_with_weights_that_are_no_numbers(models: Path) -> None:
    file = gguf.tiny_llama()
    output = next(tensor for tensor in file.tensors if tensor.name == "output.weight")
    weights = np.frombuffer(output.data, "<f4").copy()
    weights[5] = np.nan
    output.data = weights.tobytes()
    (models / "tiny.gguf").write_bytes(file.to_bytes())
    assert math.isnan(perplexity(models / "tiny.gguf", {})[0])
    with pytest.raises(errors.InvalidRequest):
        _quantize(models)
    assert sorted(path.name for path in models.iterdir()) == ["tiny.gguf"]


def test_options(models: Path) -> None:
    assert _types(_quantize(models, leave_output=True, max_ratio=None).path)["output.weight"] == "f32"
    mixed = _types(_quantize(models, "Q4_0", "mixed", threads=1, max_ratio=None).path)
    pure = _types(_quantize(models, "Q4_0", "pure", pure=True, max_ratio=None).path)
    assert mixed["output.weight"] != "q4_0"
    assert set(pure.values()) == {"q4_0", "f32"}


def test_types_whose_blocks_do_not_fit_are_told(models: Path) -> None:
    assert _quantize(models, "Q4_K_M", max_ratio=None).fallbacks > 0
    assert _quantize(models, "Q8_0", "other", max_ratio=None).fallbacks == 0


def test_quantizing_again_must_be_wanted(models: Path) -> None:
    (models / "small.gguf").unlink(missing_ok=True)
    _quantize(models, max_ratio=None).path.rename(models / "tiny.gguf")
    with pytest.raises(errors.InvalidRequest, match="--allow-requantize") as caught:
        _quantize(models, "Q4_0")
    assert caught.value.field == "allow_requantize"
    assert _quantize(models, "Q8_0", "same", max_ratio=None).path.exists()  # nothing changes its type
    assert _quantize(models, "Q4_0", "again", allow_requantize=True, max_ratio=None).path.exists()


def test_parts_are_joined(models: Path) -> None:
    parts = gguf.write_split(models, "big", 3)
    made = quantize(parts[0], models / "whole.gguf", Quantization(type="COPY"), models)
    assert made.verification is not None
    assert made.verification.ratio == 1.0
    assert _types(made.path) == _types(models / "tiny.gguf")


def test_a_model_that_only_embeds_is_not_compared(models: Path) -> None:
    file = gguf.tiny_llama()
    file.set("llama.pooling_type", gguf.scalar(gguf.U32, 1))
    (models / "tiny.gguf").write_bytes(file.to_bytes())
    assert _quantize(models).verification is None


# ---- refusals ----


def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "target", "error", "told"),
    [
        ("Q9_0", "small.gguf", errors.InvalidRequest, "Known types: F32, F16, BF16, Q8_0"),
        ("Q8_0", "tiny.gguf", errors.InvalidRequest, "--force replaces it"),
        ("Q8_0", "small.bin", errors.InvalidRequest, "ends in .gguf"),
    ],
)
def test_refusals(models: Path, kind: str, target: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        quantize(models / "tiny.gguf", models / target, Quantization(type=kind), models)


def test_force_replaces_another_model_but_not_the_source(models: Path, tiny_model: Path) -> None:
    (models / "small.gguf").write_bytes(b"old")
    assert _quantize(models, force=True, max_ratio=None).path.read_bytes() != b"old"
    (models / "link.gguf").symlink_to(models / "tiny.gguf")
    for target in ("tiny", "link"):
        with pytest.raises(errors.InvalidRequest, match="source itself"):
            _quantize(models, target=target, force=True)
    assert (models / "tiny.gguf").read_bytes() == tiny_model.read_bytes()


def test_a_full_disk_is_seen_before(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_room(monkeypatch)
    with pytest.raises(errors.ServiceUnavailable, match="bytes free"):
        _quantize(models)


# ---- importance matrices ----


@pytest.fixture
def wide(models: Path) -> list[gguf.Tensor]:
    """Matrices with rows of 256 in the place of `tiny`'s, so that the blocks of all types fit."""
    file = gguf.tiny_llama()
    random = np.random.default_rng(1)
    found = [tensor for tensor in file.tensors if "ffn_down" in str(tensor.name)]
    for tensor in found:
        tensor.dims, tensor.data = (256, 64), random.normal(size=(64, 256)).astype("<f4").tobytes()
    (models / "tiny.gguf").write_bytes(file.to_bytes())
    return found


def _imatrix(path: Path, tensors: list[gguf.Tensor], *, kind: str = "imatrix", n_counts: int = 1) -> str:
    """The inputs of the first half matter a hundred times as much."""
    file = gguf.Gguf()
    file.set("general.type", gguf.scalar(gguf.STRING, kind))
    for tensor in tensors:
        n_in = tensor.dims[0]
        sums = np.where(np.arange(n_in) < n_in // 2, 1000.0, 10.0).astype("<f4")
        file.tensors.append(gguf.Tensor(f"{tensor.name}.in_sum2", (n_in, 1), sums.tobytes()))
        counts = np.full(n_counts, 10.0, "<f4")
        file.tensors.append(gguf.Tensor(f"{tensor.name}.counts", (1, n_counts), counts.tobytes()))
    path.write_bytes(file.to_bytes())
    return str(path)


def test_types_that_need_more_than_the_model(models: Path, wide: list[gguf.Tensor]) -> None:
    with pytest.raises(errors.InvalidRequest, match="importance matrix") as caught:
        _quantize(models, "Q2_K_S")
    assert caught.value.field == "imatrix"


def test_an_importance_matrix_is_heeded(models: Path, wide: list[gguf.Tensor]) -> None:
    imatrix = _imatrix(models / "i.gguf", wide)
    weighted = _quantize(models, "Q2_K", "weighted", imatrix=imatrix, max_ratio=None)
    plain = _quantize(models, "Q2_K", "plain", max_ratio=None)
    assert weighted.path.read_bytes() != plain.path.read_bytes()
    assert (weighted.size_bytes, _types(weighted.path)) == (plain.size_bytes, _types(plain.path))
    assert _quantize(models, "Q2_K_S", imatrix=imatrix, max_ratio=None).path.exists()


def test_files_that_are_no_importance_matrices(models: Path, wide: list[gguf.Tensor]) -> None:
    bad = {
        "model": str(models / "tiny.gguf"),
        "kind": _imatrix(models / "kind.gguf", wide, kind="model"),
        "counts": _imatrix(models / "counts.gguf", wide, n_counts=2),
        "empty": _imatrix(models / "empty.gguf", []),
        "absent": str(models / "absent.gguf"),
    }
    for path in bad.values():
        with pytest.raises(errors.InvalidRequest, match="not an importance matrix") as caught:
            _quantize(models, "Q2_K", imatrix=path)
        assert caught.value.field == "imatrix"


# ---- interruptions ----


def _interrupt(done: int, total: int) -> None:
    if done == 3:
        raise KeyboardInterrupt


def test_an_interruption_leaves_nothing(models: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _quantize(models, progress=_interrupt)
    assert sorted(path.name for path in models.iterdir()) == ["tiny.gguf"]


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), 9)", "pass"])
def test_a_process_that_dies(monkeypatch: pytest.MonkeyPatch, death: str) -> None:
    script = f"import os, sys; sys.stdin.read(); {death}"
    monkeypatch.setattr(child, "_COMMAND", (sys.executable, "-c", script))
    with pytest.raises(errors.InvalidRequest, match="broke the process"):
        child.call("file_types", {})


def test_errors_come_through(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        child.call("list_tensors", {"path": str(tmp_path / "nothing.gguf")})
    assert caught.value.field == "model"


def test_the_built_in_text_is_of_some_length() -> None:
    assert 300 < len(reference_text().split()) < 500
