import contextlib
import os
import resource
import socket
import time
from pathlib import Path

import pytest
from inferno import errors
from inferno.models import preflight

from tests import gguf_files as gguf

_MALFORMED = gguf.malformed()


def _refusal(path: Path) -> str:
    with pytest.raises(errors.InvalidRequest) as caught:
        preflight.check(path)
    assert caught.value.field == "model"
    assert str(path.parent) not in caught.value.message
    return caught.value.message


def _write(path: Path, file: gguf.Gguf) -> Path:
    path.write_bytes(file.to_bytes())
    return path


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama"])
def test_a_sound_model_passes(tmp_path: Path, tokenizer: str) -> None:
    preflight.check(gguf.write_tiny_llama(tmp_path / "m.gguf", tokenizer=tokenizer))


def test_the_tiny_model_is_the_same_every_time() -> None:
    assert gguf.tiny_llama().to_bytes() == gguf.tiny_llama().to_bytes()


@pytest.mark.acceptance("S6")
@pytest.mark.parametrize("kind", sorted(_MALFORMED))
def test_malformed_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(_MALFORMED[kind])
    assert _refusal(path)


@pytest.mark.acceptance("S6")
def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    whole = gguf.minimal().to_bytes()
    path = tmp_path / "m.gguf"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        _refusal(path)


def test_any_flipped_byte_is_refused_or_passes(tmp_path: Path) -> None:
    """Never another exception, whatever a byte becomes."""
    whole = gguf.minimal().to_bytes()
    path = tmp_path / "m.gguf"
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(errors.InvalidRequest):
            preflight.check(path)


@pytest.mark.acceptance("S6")
def test_metadata_bombs_take_no_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind in ("string_1_gib", "array_2_30", "array_2_63", "strings_2_24", "keys_2_63", "tensors_2_63"):
        path = tmp_path / kind
        path.write_bytes(_MALFORMED[kind])
        _refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.gguf"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.gguf"))
        for path in (fifo, tmp_path, tmp_path / "s.gguf", Path("/dev/zero"), tmp_path / "absent.gguf"):
            _refusal(path)


def test_null_in_a_path_is_refused() -> None:
    with pytest.raises(errors.InvalidRequest):
        preflight.check(Path("a\0.gguf"))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "m.gguf", gguf.minimal())
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: real(fd, n, at)[: max(0, 300 - at)])
    assert "changes" in _refusal(path)


def test_strings_over_the_edge_of_the_window_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gguf.write_tiny_llama(tmp_path / "m.gguf")
    for window in range(64, 128):
        monkeypatch.setattr(preflight._Reader, "WINDOW", window)
        preflight.check(path)


@pytest.mark.parametrize("absent", [-1, 0xFFFFFFFF])
def test_old_converters_way_to_say_no_token(tmp_path: Path, absent: int) -> None:
    file = gguf.minimal()
    kind = gguf.I32 if absent < 0 else gguf.U32
    file.set("tokenizer.ggml.padding_token_id", gguf.scalar(kind, absent))
    preflight.check(_write(tmp_path / "m.gguf", file))


def test_models_without_attention_have_no_heads(tmp_path: Path) -> None:
    file = gguf.minimal()
    file.set("llama.attention.head_count", gguf.scalar(gguf.U32, 0))
    file.remove("llama.attention.head_count_kv")
    preflight.check(_write(tmp_path / "m.gguf", file))


def test_a_head_count_for_each_layer(tmp_path: Path) -> None:
    file = gguf.minimal()
    file.set("llama.block_count", gguf.scalar(gguf.U32, 3))
    file.set("llama.attention.head_count", gguf.array(gguf.U32, [4, 0, 8]))
    file.set("llama.attention.head_count_kv", gguf.array(gguf.I32, [2, 0, 4]))
    preflight.check(_write(tmp_path / "m.gguf", file))


def test_experts_that_fit_together(tmp_path: Path) -> None:
    file = gguf.minimal()
    for name, value in (
        ("expert_count", 8), ("expert_used_count", 2), ("expert_group_count", 4), ("expert_group_used_count", 2)
    ):  # fmt: skip
        file.set(f"llama.{name}", gguf.scalar(gguf.U32, value))
    preflight.check(_write(tmp_path / "m.gguf", file))


def test_custom_alignment(tmp_path: Path) -> None:
    file = gguf.minimal()
    file.alignment = 64
    file.set("general.alignment", gguf.scalar(gguf.U32, 64))
    preflight.check(_write(tmp_path / "m.gguf", file))


def _parts(directory: Path) -> list[Path]:
    first, second = gguf.minimal(), gguf.Gguf()
    second.tensors = [first.tensors.pop()]
    paths = [directory / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for number, (path, file) in enumerate(zip(paths, (first, second), strict=True)):
        file.set("split.no", gguf.scalar(gguf.U16, number))
        file.set("split.count", gguf.scalar(gguf.U16, 2))
        _write(path, file)
    return paths


def test_all_parts_of_a_split_model_are_looked_at(tmp_path: Path) -> None:
    first, second = _parts(tmp_path)
    preflight.check(first)
    second.write_bytes(second.read_bytes()[:-1])
    assert "past the end" in _refusal(first)
    second.unlink()
    assert "of its 2 parts there is no m-00002-of-00002.gguf" in _refusal(first)


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    first, _ = _parts(tmp_path)
    assert "parts" in _refusal(first.rename(tmp_path / "m.gguf"))


def test_a_large_vocabulary_is_quick(tmp_path: Path) -> None:
    n = 150_000
    file = gguf.minimal()
    file.set("tokenizer.ggml.tokens", gguf.array(gguf.STRING, ["<0x0A>", *(f"token{i}" for i in range(n - 1))]))
    file.set("tokenizer.ggml.token_type", gguf.array(gguf.I32, [6, *[1] * (n - 1)]))
    file.set("tokenizer.ggml.scores", gguf.array(gguf.F32, [0.0] * n))
    file.set("tokenizer.ggml.merges", gguf.array(gguf.STRING, ["a b"] * n))
    path = _write(tmp_path / "m.gguf", file)
    started = time.process_time()
    preflight.check(path)
    assert time.process_time() - started < 1.0  # 0.1 s on an idle machine
