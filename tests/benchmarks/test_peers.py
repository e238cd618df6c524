"""Peers as processes, played by small scripts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.exchange import Failed
from benchmarks.peers.base import Options
from benchmarks.peers.child import ChildPeer
from benchmarks.peers.inferno_server import InfernoServer
from benchmarks.peers.llama_programs import BatchedBench, LlamaBench, Program
from benchmarks.peers.llama_server import LlamaServer, LlamaServerDefaults
from benchmarks.peers.openvino_engine import OpenVino
from benchmarks.prompts import Vocabulary
from benchmarks.workloads.base import Setting
from benchmarks.workloads.clients import UniquePrompts

MODEL = Path("/models/a.gguf")
VOCABULARY = Vocabulary([1, 2, 3])
WORKLOAD = UniquePrompts(name="w", clients=4, requests=2, prompt=64, new=16)


def options(programs: Path, *llama_arguments: str) -> Options:
    return Options(2, programs, llama_arguments)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\nimport sys, os\n{text}\n")
    path.chmod(0o755)
    return path


def test_llama_server_is_tuned_for_the_setting(tmp_path: Path) -> None:
    command = LlamaServer().command(MODEL, Setting(16, 512), options(tmp_path, "-b", "512"), 1234, tmp_path)
    line = " ".join(command)
    assert "-np 16 -c 8192 --no-kv-unified -t 2 -tb 2 --log-disable" in line
    assert line.endswith("-b 512")
    assert "--embeddings" not in line
    assert "--embeddings" in LlamaServer().command(MODEL, Setting(4, 512, True), options(tmp_path), 1234, tmp_path)


def test_llama_server_s_defaults_are_its_own(tmp_path: Path) -> None:
    command = LlamaServerDefaults().command(MODEL, Setting(16, 512), options(tmp_path), 1234, tmp_path)
    assert not {"-np", "-c", "-t"} & set(command)


def test_both_servers_wait_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    monkeypatch.setenv("INFERNO_ENGINE_PARALLEL", "1")
    assert LlamaServer().environment()["GOMP_SPINCOUNT"] == "1000"
    for peer in (LlamaServer(), LlamaServerDefaults(), InfernoServer()):
        assert not {"LLAMA_ARG_CTX_SIZE", "INFERNO_ENGINE_PARALLEL"} & set(peer.environment())


def test_our_server_gets_the_same_sequences_and_threads(tmp_path: Path) -> None:
    line = " ".join(InfernoServer().command(MODEL, Setting(16, 512), options(tmp_path), 1234, tmp_path))
    assert "--no-rate-limits --parallel 16 --context-size 512 --threads 2" in line


def test_our_server_may_be_another_build(tmp_path: Path) -> None:
    assert (
        InfernoServer("other/python").command(MODEL, Setting(1, 64), options(tmp_path), 1234, tmp_path)[0]
        == "other/python"
    )


def test_a_program_that_is_not_built_is_named(tmp_path: Path) -> None:
    for peer in (LlamaServer(), BatchedBench(), LlamaBench()):
        with pytest.raises(Failed, match="`make peers` builds it"):
            peer.prepare(options(tmp_path))


def test_a_server_that_ends_while_it_starts_says_why(tmp_path: Path) -> None:
    script(tmp_path / "llama-server", "sys.exit('no such model')")
    with (
        pytest.raises(Failed, match="it ended while it started: no such model"),
        LlamaServer().start(MODEL, Setting(1, 64), options(tmp_path)),
    ):
        pass


@pytest.mark.parametrize(
    ("program", "row", "arguments", "metrics"),
    [
        (
            BatchedBench(),
            {"t": 2.0, "speed_pp": 500.0, "speed_tg": 50.0},
            "-c 576 -npp 64 -ntg 16 -npl 4",
            {"output_tok_s": 32.0, "input_tok_s": 128.0, "decode_tok_s": 50.0, "prefill_tok_s": 500.0, "wall_s": 2.0},
        ),
        (LlamaBench(), {"avg_ts": 900.0}, "-p 64 -n 0 -r 8", {"input_tok_s": 900.0}),
    ],
)
def test_llama_cpp_s_programs(
    tmp_path: Path, program: Program, row: dict[str, float], arguments: str, metrics: dict[str, float]
) -> None:
    said = tmp_path / "arguments"
    text = f"open({str(said)!r}, 'w').write(' '.join(sys.argv[1:]))\nprint('a line')\nprint({json.dumps(row)!r})"
    script(tmp_path / program.name, text)
    with program.start(MODEL, WORKLOAD.setting, options(tmp_path)) as running:
        assert running.measure(WORKLOAD, VOCABULARY, 0) == metrics
    assert f"-m {MODEL} -t 2 {arguments}" in said.read_text()


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    script(tmp_path / "llama-bench", "sys.exit('out of memory')")
    with (
        LlamaBench().start(MODEL, WORKLOAD.setting, options(tmp_path)) as running,
        pytest.raises(Failed, match="it ended with 1: out of memory"),
    ):
        running.measure(WORKLOAD, VOCABULARY, 0)


class Scripted(ChildPeer):
    def __init__(self, path: Path) -> None:
        self._path = path

    def command(self, model: Path, setting: Setting, options: Options) -> list[str]:
        return [str(self._path)]


ANSWERS = """
import json
print("ready", flush=True)
for line in sys.stdin:
    prompts = [prompt for client in json.loads(line)["clients"] for prompt in client]
    answer = {"begun": 1, "ended": 2, "times": [[1.5]], "completion_tokens": 16}
    print(json.dumps([{**answer, "prompt_tokens": len(prompt)} for prompt in prompts]), flush=True)
"""


def test_a_child_does_jobs_until_it_is_stopped(tmp_path: Path) -> None:
    peer = Scripted(script(tmp_path / "child", ANSWERS))
    with peer.start(MODEL, WORKLOAD.setting, options(tmp_path)) as child:
        child.warm_up(WORKLOAD.setting, VOCABULARY)
        metrics = child.measure(WORKLOAD, VOCABULARY, 0)
        assert (metrics["requests"], metrics["prompt_tokens"]) == (8, 512)
        assert metrics["output_tok_s"] == 8 * 16
        assert metrics["peak_rss_mib"] > 1
    assert child.process.returncode is not None


@pytest.mark.parametrize("text", ["sys.exit('no memory')", "print('ready', flush=True)\nsys.exit('no memory')"])
def test_a_child_that_ends_says_why(tmp_path: Path, text: str) -> None:
    peer = Scripted(script(tmp_path / "child", text))
    with (
        pytest.raises(Failed, match="it ended: no memory"),
        peer.start(MODEL, WORKLOAD.setting, options(tmp_path)) as child,
    ):
        child.measure(WORKLOAD, VOCABULARY, 0)


def test_openvino_lives_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERNO_CACHE_DIR", str(tmp_path))
    command = OpenVino().command(MODEL, Setting(8, 128), options(tmp_path))
    assert command[0] == str(tmp_path / "peers/openvino/bin/python")
    assert command[2:] == [str(MODEL), "8", "128", "2"]
