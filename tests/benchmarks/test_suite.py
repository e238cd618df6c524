"""The suite itself, in seconds: our server and our engine on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import suite
from benchmarks.results import Results
from tests.gguf_files import write_tiny_llama


def run(model: Path, output: Path, *arguments: str) -> Results:
    options = ["--quick", "--model", str(model), "--output", str(output), "--threads", "1"]
    assert suite.main([*options, "--programs", str(output / "nowhere"), *arguments]) == 0
    return Results.load(output / "suite.local.json")


@pytest.mark.e2e
def test_measures_our_server_and_engine_side_by_side(tmp_path: Path) -> None:
    model = write_tiny_llama(tmp_path / "tiny.gguf", context_train=4096)
    peers = ("--peers", "inferno,inferno-in-process,llama-server")
    results = run(model, tmp_path, *peers, "--only", "shared-prefix,live-streams", "--rounds", "2")
    for peer in ("inferno", "inferno-in-process"):
        (first, second) = results.of("shared-prefix", "own", peer)
        assert first.metrics["prompt_tokens"] == 16 * (128 + 16)
        assert first.metrics["new_tokens"] == 16 * 16
        assert first.metrics["peak_rss_mib"] > 10
        assert second.metrics["output_tok_s"] > 0
    assert [run.peer for run in results.runs if run.workload == "shared-prefix"] == [
        *("inferno", "inferno-in-process"),
        *("inferno-in-process", "inferno"),
    ]
    live = results.medians("live-streams", "own", "inferno")
    assert live["prompt_tokens"] == 1000
    assert live["itl_max_ms"] >= live["itl_p99_ms"] > 0
    assert "`make peers` builds it" in results.absent["llama-server"]
    assert "Inferno in process" in (tmp_path / "suite.local.md").read_text()


def test_a_file_that_cannot_be_had_is_said_and_the_rest_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERNO_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("INFERNO_TEST_MODEL", str(write_tiny_llama(tmp_path / "tiny.gguf")))
    options = ["--quick", "--only", "clients-1", "--files", "q4_0,q4_1", "--peers", "inferno-in-process"]
    assert suite.main([*options, "--programs", str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 0
    results = Results.load(tmp_path / "suite.local.json")
    assert results.cells() == [("clients-1", "q4_1")]
    assert "`make peers` builds it" in results.absent["q4_0"]
