"""How a model's file gets into memory: the same model, whichever way."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from inferno import LLM, _core, errors

MODES = next(row for row in _core.engine_fields() if row["name"] == "load_mode")["choices"]

#: Gives up the right to lock any memory, then loads.
_UNPRIVILEGED = """
import ctypes, resource, struct, sys
from inferno import LLM, errors
libc = ctypes.CDLL(None, use_errno=True)
assert libc.capset(struct.pack("<II", 0x20080522, 0), bytes(24)) == 0
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
loaded = []
for mode in sys.argv[3:]:
    try:
        loaded.append(LLM(sys.argv[1], context_size=64, parallel=1, threads=1, load_mode=mode))
        print("loaded")
    except errors.InvalidRequest as error:
        print(error.field, error.message)
"""


@pytest.fixture(scope="module")
def packed_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with weights that our kernels keep packed."""
    path = tmp_path_factory.mktemp("packed") / "tiny.gguf"
    _core.quantize(str(tiny_model), str(path), "Q8_0")
    return path


def _tokens(path: Path, mode: str) -> list[tuple[int, float]]:
    with LLM(path, context_size=128, parallel=1, threads=1, load_mode=mode) as llm:
        choice = llm.generate("hello", max_tokens=8, temperature=0, logprobs=0, ignore_eos=True).choices[0]
        return [(row.token, row.logprob) for row in choice.logprobs or []]


def test_the_text_is_the_same(packed_model: Path) -> None:
    texts = [_tokens(packed_model, mode) for mode in MODES]
    assert len(texts[0]) == 8
    assert texts == [texts[0]] * len(MODES)


def _mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="maps are read from /proc")
@pytest.mark.parametrize(("mode", "mapped"), [("read", False), ("mmap", True), ("auto", True), ("direct", False)])
def test_what_is_mapped(tiny_model: Path, mode: str, mapped: bool) -> None:
    with LLM(tiny_model, context_size=64, parallel=1, load_mode=mode):
        assert _mapped(tiny_model) is mapped
    assert not _mapped(tiny_model)


def test_an_unknown_mode_is_refused(tiny_model: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="one of read, mmap, mlock") as caught:
        LLM(tiny_model, load_mode="swap")
    assert caught.value.field == "load_mode"


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_memory_that_must_not_be_locked(tiny_model: Path) -> None:
    """llama.cpp would warn and load it unlocked."""
    loaded, *refused = _unprivileged(tiny_model, 4096, "read", "mlock", "mmap_mlock")
    assert loaded == "loaded"
    for mode, line in zip(("mlock", "mmap_mlock"), refused, strict=True):
        assert line.startswith(f"load_mode load_mode {mode} locks up to")
        assert "ulimit -l" in line


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_what_is_locked_counts(tiny_model: Path) -> None:
    loaded, refused = _unprivileged(tiny_model, tiny_model.stat().st_size * 3 // 2, "mlock", "mlock")
    assert loaded == "loaded"
    assert refused.startswith("load_mode load_mode mlock locks up to")


def _unprivileged(path: Path, limit: int, *modes: str) -> list[str]:
    """What becomes of loading the model in each mode, one after the other, where only `limit` bytes may be locked."""
    command = [sys.executable, "-c", _UNPRIVILEGED, str(path), str(limit), *modes]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def _lockable_bytes() -> float:
    """Who has CAP_IPC_LOCK is not bound by the limit."""
    import resource  # not everywhere

    (rights,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")]
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return math.inf if int(rights.split()[1], 16) >> 14 & 1 or limit == resource.RLIM_INFINITY else limit


@pytest.mark.skipif(sys.platform != "linux", reason="locked memory is read from /proc")
@pytest.mark.parametrize("cpu_kernels", [True, False])
def test_what_is_locked(smollm2: Path, cpu_kernels: bool) -> None:
    """Nearly all: not the KV cache, and llama.cpp does not manage the last page of some buffers."""
    given = {"context_size": 64, "parallel": 1, "threads": 1, "cpu_kernels": cpu_kernels}
    if _lockable_bytes() < _core.estimate_memory(str(smollm2), given)["total_bytes"]:
        pytest.skip("this process may not lock so much memory: raise `ulimit -l`")

    def locked_kib() -> int:
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck")]
        return int(line.split()[1])

    before = locked_kib()
    with LLM(smollm2, load_mode="mlock", **given):
        assert locked_kib() - before > 0.99 * _core.inspect_model(str(smollm2))["size_bytes"] / 1024
