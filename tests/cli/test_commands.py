"""The command line, run as programs run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_version(inferno) -> None:  # type: ignore[no-untyped-def]
    assert inferno("--version").stdout.startswith("inferno, version 0.1.0")


def test_a_mistyped_command_is_corrected(inferno) -> None:  # type: ignore[no-untyped-def]
    result = inferno("modles")
    assert result.returncode == 2
    assert "Did you mean models?" in result.stderr


def test_models_list_is_empty_at_first(inferno) -> None:  # type: ignore[no-untyped-def]
    result = inferno("models", "list", "--json")
    assert json.loads(result.stdout) == []


def test_an_unknown_model_has_its_own_exit_code(inferno) -> None:  # type: ignore[no-untyped-def]
    result = inferno("models", "info", "nothing")
    assert result.returncode == 3
    assert "Model 'nothing' not found" in result.stderr


def test_pull_list_info_and_delete_a_file(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    assert inferno("models", "pull", str(tiny_model)).returncode == 0
    assert [model["id"] for model in json.loads(inferno("models", "list", "--json").stdout)] == ["tiny"]
    info = json.loads(inferno("models", "info", "tiny", "--context-size", "64", "--json").stdout)
    assert info["memory"]["total_bytes"] > 0
    assert inferno("models", "rm", "tiny").returncode == 0
    assert inferno("models", "info", "tiny").returncode == 3


def test_run_answers_on_standard_output(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    result = inferno("run", str(tiny_model), "-p", "hello", "--max-tokens", "4", "--json")
    assert json.loads(result.stdout)["usage"]["completion_tokens"] == 4
    assert result.stderr == ""


def test_run_reads_standard_input(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = ("run", str(tiny_model), "--max-tokens", "4", "--temperature", "0")
    assert inferno(*arguments, stdin="hello").stdout == inferno(*arguments, "-p", "hello").stdout


def test_run_names_a_bad_value(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    result = inferno("run", str(tiny_model), "-p", "x", "--temperature", "7")
    assert result.returncode == 1
    assert "temperature must be at least 0 and at most 2" in result.stderr


def test_bench_measures(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    result = inferno("bench", str(tiny_model), "--batch", "1,2", "--prompt-tokens", "8", "--new-tokens", "4", "--json")
    rows = json.loads(result.stdout)
    assert [row["batch"] for row in rows] == [1, 2]
    assert all(row["generated_tokens_per_s"] > 0 for row in rows)


def test_config_init_show_and_validate(inferno, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert inferno("config", "init").returncode == 0
    path = tmp_path / "config" / "inferno" / "config.toml"
    path.write_text(path.read_text().replace("# port = 8080", "port = 9000"))
    shown = json.loads(inferno("config", "show", "--json").stdout)
    assert shown["server.port"] == {"value": 9000, "source": "file"}
    assert inferno("config", "validate").returncode == 0
    assert inferno("config", "init").returncode == 1  # it is there


def test_config_problems_are_all_told(inferno, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bad.toml"
    path.write_text('[server]\nport = 99999\nhots = "x"\n')
    result = inferno("config", "validate", "--config", str(path))
    assert result.returncode == 1
    assert "server.port" in result.stderr
    assert "server.hots" in result.stderr


@pytest.mark.acceptance("A7")
def test_serve_refuses_to_be_open_to_all(inferno) -> None:  # type: ignore[no-untyped-def]
    result = inferno("serve", "--host", "0.0.0.0", "--no-auth")
    assert result.returncode == 1
    assert "loopback" in result.stderr


def test_a_name_that_looks_like_markup_is_shown_as_it_is(inferno) -> None:  # type: ignore[no-untyped-def]
    result = inferno("models", "info", "[/x]")
    assert result.returncode == 3
    assert "Model '[/x]' not found" in result.stderr


def test_a_value_that_looks_like_markup_is_shown_as_it_is(inferno, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "config.toml"
    path.write_text('[models]\npreload = ["[/x]", "[red]y"]\n')
    assert "['[/x]', '[red]y']" in inferno("config", "show", "--config", str(path)).stdout
