"""`inferno models` quantize, convert, verify and info, and split models, as programs run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from inferno.models.manifest import NAME
from inferno.models.quantize import perplexity

from tests import gguf_files as gguf
from tests.cli.terminal import Terminal
from tests.hugging_face import write_tiny_llama

Inferno: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def models(tmp_path: Path, tiny_model: Path) -> Path:
    """The models directory of `inferno`; has one model, `tiny`, which nobody has recorded."""
    path = tmp_path / "data" / "models"
    path.mkdir(parents=True)
    shutil.copy(tiny_model, path / "tiny.gguf")
    return path


# ---- quantize ----


def test_quantize_by_id(inferno: Inferno, models: Path) -> None:
    made = json.loads(inferno("models", "quantize", "tiny", "q8_0", "--json").stdout)
    path = models / "tiny-Q8_0.gguf"
    assert made["path"] == str(path)
    assert made["perplexity"] == pytest.approx(perplexity(path, {})[0])
    assert made["source_perplexity"] == pytest.approx(perplexity(models / "tiny.gguf", {})[0])
    assert json.loads(inferno("models", "verify", "tiny-Q8_0", "--json").stdout) == [
        {"file": "tiny-Q8_0.gguf", "status": "ok", "sha256": made["sha256"]}
    ]
    again = inferno("models", "quantize", "tiny-Q8_0", "Q4_0", "--allow-requantize", "--no-verify")
    assert again.stdout.splitlines()[0].startswith(str(models / "tiny-Q4_0.gguf"))  # not tiny-Q8_0-Q4_0
    assert "not compared" in again.stdout


def test_quantize_files(inferno: Inferno, tiny_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    result = inferno("models", "quantize", str(tiny_model), "F16", str(target))
    assert result.returncode == 0
    assert "Perplexity" in result.stdout
    assert target.exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".gguf") == []


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("tinny", "Q8_0"), 3, "Did you mean tiny?"),
        (("tiny", "Q8"), 1, "There is no type Q8. Known types: F32, F16"),
        (("tiny", "Q8_0", "tiny"), 1, "tiny.gguf is there already; --force replaces it."),
        (("tiny", "Q8_0", "../x"), 1, "is not an id"),
        (("tiny", "Q8_0", "--max-ratio", "0.5"), 2, "--max-ratio"),
        (("tiny",), 2, "TYPE"),
    ],
)
def test_quantize_refuses(inferno: Inferno, models: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    result = inferno("models", "quantize", *arguments)
    assert result.returncode == code
    assert told in result.stderr
    assert [path.name for path in models.glob("*.gguf")] == ["tiny.gguf"]


@pytest.mark.parametrize(("stop", "code"), [("ctrl-c", 130), ("terminate", 143)])
def test_quantize_can_be_interrupted(tmp_path: Path, smollm2: Path, stop: str, code: int) -> None:
    """While it computes: nothing is left."""
    target = tmp_path / "out.gguf"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("INFERNO_")}
    environ |= {"INFERNO_DATA_DIR": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    arguments = ("models", "quantize", str(smollm2), "IQ4_NL", str(target), "--allow-requantize", "--threads", "1")
    with Terminal(*arguments, env=environ) as terminal:
        terminal.until(r"[1-9]\d*/272")
        if stop == "ctrl-c":
            terminal.press("\x03")
        else:
            terminal.process.terminate()
        assert terminal.ended() == code
    assert list(tmp_path.iterdir()) == []


# ---- verify ----


def test_verify(inferno: Inferno, models: Path) -> None:
    unrecorded = inferno("models", "verify")
    assert (unrecorded.returncode, unrecorded.stdout.split()[-2:]) == (1, ["tiny.gguf", "unrecorded"])
    assert inferno("models", "verify", "--record").returncode == 0
    assert subprocess.run(["sha256sum", "-c", NAME], cwd=models, capture_output=True).returncode == 0
    data = bytearray((models / "tiny.gguf").read_bytes())
    data[-1] ^= 1
    (models / "tiny.gguf").write_bytes(data)
    changed = inferno("models", "verify", "tiny")
    assert (changed.returncode, changed.stdout.split()[-2:]) == (1, ["tiny.gguf", "changed"])
    assert inferno("models", "verify", "--record").returncode == 1  # recording is for what has no hash
    (models / "tiny.gguf").write_bytes(b"GGUF")
    assert inferno("models", "verify", "tiny").returncode == 1
    (models / "tiny.gguf").unlink()
    missing = inferno("models", "verify")
    assert (missing.returncode, missing.stdout.split()[-2:]) == (1, ["tiny.gguf", "missing"])
    assert inferno("models", "verify", "tiny").returncode == 3


def test_rm_forgets(inferno: Inferno, models: Path) -> None:
    inferno("models", "verify", "--record")
    inferno("models", "rm", "tiny")
    assert inferno("models", "verify").returncode == 0


# ---- info ----


def test_info_has_the_tensors_and_the_memory(inferno: Inferno, models: Path) -> None:
    arguments = ("models", "info", "tiny", "--json", "--parallel", "1")
    small = json.loads(inferno(*arguments, "--context-size", "256", "--tensors").stdout)
    large = json.loads(inferno(*arguments, "--context-size", "512").stdout)
    assert large["memory"]["context_bytes"] == 2 * small["memory"]["context_bytes"]
    assert "tensors" not in large
    file = gguf.tiny_llama()
    assert [(row["name"], tuple(row["shape"]), row["bytes"]) for row in small["tensors"]] == [
        (tensor.name, tensor.dims, len(tensor.data)) for tensor in file.tensors
    ]
    total = sum(len(tensor.data) for tensor in file.tensors)
    assert small["tensor_types"] == {"f32": {"tensors": len(file.tensors), "bytes": total}}
    assert (small["tokenizer"], small["files"]) == ("gpt2", 1)
    assert small["metadata"]["general.name"] == "Tiny Llama"


def test_info_for_people(inferno: Inferno, models: Path) -> None:
    shown = inferno("models", "info", str(models / "tiny.gguf"), "--tensors", "--metadata", columns=200).stdout
    for told in ("8 sequences of 512 tokens", "WEIGHTS", "blk.1.ffn_down.weight", "general.architecture"):
        assert told in shown


def test_info_prints_the_template(inferno: Inferno, models: Path, tmp_path: Path) -> None:
    assert inferno("models", "info", "tiny", "--template").stdout == gguf.CHAT_TEMPLATE + "\n"
    file = gguf.tiny_llama()
    file.remove("tokenizer.chat_template")
    (tmp_path / "bare.gguf").write_bytes(file.to_bytes())
    assert inferno("models", "info", str(tmp_path / "bare.gguf"), "--template").returncode == 3


# ---- split models ----


def test_a_split_model(inferno: Inferno, models: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    parts = gguf.write_split(tmp_path / "source", "big", 3)
    ran = inferno("run", str(parts[2]), "-p", "hello", "--max-tokens", "4", "--temperature", "0")
    whole = inferno("run", "tiny", "-p", "hello", "--max-tokens", "4", "--temperature", "0")
    assert (ran.returncode, ran.stdout) == (0, whole.stdout)
    assert inferno("models", "pull", str(parts[1])).stdout == "big is ready.\n"
    listed = {row["id"]: row for row in json.loads(inferno("models", "list", "--json").stdout)}
    assert set(listed) == {"big", "tiny"}
    assert listed["big"]["size_bytes"] == sum(part.stat().st_size for part in parts)
    assert (listed["big"]["files"], listed["big"]["parameters"]) == (3, listed["tiny"]["parameters"])
    assert inferno("models", "verify", "big").returncode == 0
    (models / parts[1].name).unlink()
    refused = inferno("run", "big", "-p", "x")
    assert (refused.returncode, parts[1].name in refused.stderr) == (1, True)
    assert inferno("models", "verify", "big").returncode == 1
    assert inferno("models", "rm", "big").returncode == 0
    assert list(models.glob("big*")) == []


# ---- convert ----


def test_convert_asks_before_it_fetches(inferno: Inferno, tmp_path: Path) -> None:
    directory = write_tiny_llama(tmp_path / "tiny-hf")
    result = inferno("models", "convert", str(directory), env={"INFERNO_CACHE_DIR": str(tmp_path / "cache")})
    assert result.returncode == 1
    for told in ("a download of 77 MB", "PyTorch", "5 GB", str(tmp_path / "cache"), "--yes"):
        assert told in result.stderr
    assert not (tmp_path / "cache").exists()


def test_convert_takes_a_python_that_is_there(inferno: Inferno, models: Path, tmp_path: Path, tiny_model: Path) -> None:
    """With a program of the test's own in the place of the pinned converter."""
    from inferno.models.converter import locate

    cache = tmp_path / "cache"
    script = locate(cache).script
    script.parent.mkdir(parents=True)
    script.write_text(f"import shutil, sys; shutil.copy({str(tiny_model)!r}, sys.argv[3])")
    directory = write_tiny_llama(tmp_path / "tiny-hf")
    arguments = ("models", "convert", str(directory), "--type", "q8_0", "--python", sys.executable, "--json")
    made = json.loads(inferno(*arguments, env={"INFERNO_CACHE_DIR": str(cache)}).stdout)
    assert made["path"] == str(models / "tiny-hf-Q8_0.gguf")
    assert inferno("models", "verify", "tiny-hf-Q8_0").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nothing",), 3, "There is no directory 'nothing'."),
        ((".",), 1, "config.json"),
        ((".", "--type", "q4_0"), 2, "q4_0"),
        ((".", "--python", "nothing"), 2, "--python"),
    ],
)
def test_convert_refuses(inferno: Inferno, arguments: tuple[str, ...], code: int, told: str) -> None:
    result = inferno("models", "convert", *arguments)
    assert (result.returncode, told in result.stderr) == (code, True)
