"""Conversion, with a program of the test's own in the place of llama.cpp's converter; the real one is in
tests/engine/test_converter.py."""

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from inferno import errors
from inferno.models import converter as converter_module
from inferno.models.convert import check, convert
from inferno.models.converter import Converter, fetch, locate
from inferno.models.manifest import Manifest

from tests import gguf_files as gguf
from tests.hugging_face import write_tiny_llama

ROOT = Path(__file__).parents[2]

#: Stands in for the converter: takes its arguments, says what it says, writes `model` where it is to.
SCRIPT = """
import pathlib, sys
directory, _, outfile, _, outtype = sys.argv[1:]
assert pathlib.Path(directory, "config.json").exists()
print("INFO:hf-to-gguf:Loading model", file=sys.stderr)
for percent in (10, 100):
    print(f"\\rWriting: {percent:3}%|##", end="", file=sys.stderr)
print(file=sys.stderr)
pathlib.Path(outfile).write_bytes(pathlib.Path(__file__).with_name(outtype).read_bytes())
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "hf" / "tiny", shards=2)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def converter(tmp_path: Path) -> Converter:
    source = tmp_path / "source"
    source.mkdir()
    (source / "convert_hf_to_gguf.py").write_text(SCRIPT)
    gguf.write_tiny_llama(source / "f16")
    return Converter(source, tmp_path / "environment", Path(sys.executable), needs_environment=False)


def _convert(directory: Path, models: Path, converter: Converter, **options: Any) -> str:
    return convert(directory, models / "m.gguf", "f16", models, converter, **options)


def test_the_converter_writes_the_file(directory: Path, models: Path, converter: Converter) -> None:
    seen: list[tuple[int, int]] = []
    digest = _convert(directory, models, converter, progress=lambda done, total: seen.append((done, total)))
    assert (models / "m.gguf").read_bytes() == (converter.source / "f16").read_bytes()
    assert Manifest(models).hashes() == {"m.gguf": digest}
    assert seen == [(10, 100), (100, 100)]


def test_its_last_words_are_told(directory: Path, models: Path, converter: Converter) -> None:
    converter.script.write_text("import sys; print('INFO'); sys.exit('Model X is not supported')")
    with pytest.raises(errors.InvalidRequest, match="The converter failed: Model X is not supported"):
        _convert(directory, models, converter)
    assert list(models.iterdir()) == []


def test_a_result_that_is_no_model_is_refused(directory: Path, models: Path, converter: Converter) -> None:
    (converter.source / "f16").write_bytes(b"GGUF")
    with pytest.raises(errors.InvalidRequest, match="not valid"):
        _convert(directory, models, converter)
    assert list(models.iterdir()) == []


def test_an_interruption_ends_it_and_leaves_nothing(directory: Path, models: Path, converter: Converter) -> None:
    script = converter.script.read_text()
    converter.script.write_text(script.replace("print(file=sys.stderr)", "import time; time.sleep(600)"))
    with pytest.raises(KeyboardInterrupt):
        _convert(directory, models, converter, progress=_interrupt)
    assert list(models.iterdir()) == []


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


# ---- refusals ----


def _refusal(directory: Path, models: Path, kind: str = "f16", **options: Any) -> str:
    with pytest.raises(errors.InfernoError) as caught:
        check(directory, models / "m.gguf", kind, **options)
    return caught.value.message


def test_what_is_no_model_is_refused(directory: Path, models: Path, tmp_path: Path) -> None:
    assert "no directory" in _refusal(tmp_path / "nothing", models)
    assert "Known types: auto, f32" in _refusal(directory, models, "q4_0")
    for name, told in (
        ("model-00002-of-00002.safetensors", "there is no model-00002-of-00002.safetensors"),
        ("tokenizer.model", "no tokenizer"),
        ("config.json", "no config.json"),
    ):
        kept = (directory / name).read_bytes()
        (directory / name).unlink()
        assert told in _refusal(directory, models)
        (directory / name).write_bytes(kept)
    check(directory, models / "m.gguf", "f16")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", "{", "config.json cannot be read"),
        ("config.json", "[]", "config.json cannot be read"),
        ("config.json", "{}", "names no architecture"),
        ("model.safetensors.index.json", "{}", "index.json cannot be read"),
        ("model.safetensors.index.json", '{"weight_map": {}}', "no safetensors files"),
        ("model-00001-of-00002.safetensors", "short", "is no safetensors file"),
        ("model-00001-of-00002.safetensors", "\0" * 8 + "{}", "is no safetensors file"),
    ],
)
def test_what_is_broken_is_named(directory: Path, models: Path, name: str, content: str, told: str) -> None:
    (directory / name).write_text(content)
    assert told in _refusal(directory, models)


def test_code_must_be_trusted(directory: Path, models: Path) -> None:
    (directory / "modeling_x.py").write_text("")
    assert "modeling_x.py" in _refusal(directory, models)
    check(directory, models / "m.gguf", "f16", trust_code=True)


def test_what_is_there_is_kept(directory: Path, models: Path) -> None:
    models.mkdir()
    (models / "m.gguf").write_bytes(b"old")
    assert "--force" in _refusal(directory, models)
    check(directory, models / "m.gguf", "f16", force=True)


def test_a_full_disk_is_seen_before(directory: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1))  # type: ignore[attr-defined]
    assert "bytes free" in _refusal(directory, models)


# ---- what it needs ----


def test_the_pin_is_the_builds() -> None:
    pins = (ROOT / "python/inferno/models/llama_cpp.txt", ROOT / "third_party/llama.cpp/requirements.txt")
    ours, theirs = ([line for line in pin.read_text().splitlines() if not line.startswith("#")] for pin in pins)
    assert ours == theirs


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    converter = locate(tmp_path)
    assert [text.partition(" ")[0] for text in converter.missing] == ["the", "PyTorch,"]
    assert len(locate(tmp_path, Path(sys.executable)).missing) == 1
    converter.source.mkdir()
    converter.script.touch()
    converter.environment.mkdir()
    (converter.environment / ".complete").touch()
    assert converter.missing == []


def _archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_the_source_is_fetched_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is asked with the pin, and checks it; of the package only llama.cpp's part is unpacked."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if "download" in command:
            assert "--hash=sha256:" in Path(command[command.index("-r") + 1]).read_text()
            top = "llama_cpp_python-0"
            files = {f"{top}/vendor/llama.cpp/{name}": b"x" for name in ("convert_hf_to_gguf.py", ".git", "../../evil")}
            _archive(Path(command[command.index("--dest") + 1]) / "x.tar.gz", {**files, f"{top}/setup.py": b""})
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(converter_module.venv, "create", lambda path, with_pip: path.mkdir())
    converter = locate(tmp_path / "cache")
    said: list[str] = []
    fetch(converter, said.append)
    assert "--require-hashes" in commands[0]
    assert [path.name for path in converter.source.iterdir()] == ["convert_hf_to_gguf.py"]
    assert commands[1][0] == str(converter.python)
    assert (converter.missing, len(said)) == ([], 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_an_environment_that_is_not_complete_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(converter_module.venv, "create", lambda path, with_pip: path.mkdir())
    converter = locate(tmp_path)
    converter.source.mkdir()
    converter.script.touch()
    for _ in range(2):
        with pytest.raises(errors.ServiceUnavailable, match="No matching distribution"):
            fetch(converter)
        assert len(converter.missing) == 1
