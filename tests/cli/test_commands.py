"""The command line, run as programs run it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from inferno import _core
from inferno.cli import output
from inferno.cli.bench import measure
from inferno.cli.main import cli, main
from inferno.request import Choice, Result, Timings, Usage

from tests.cli.terminal import Terminal
from tests.fakes import model_info


def test_version(inferno) -> None:  # type: ignore[no-untyped-def]
    assert inferno("--version").stdout.startswith("inferno, version 0.1.0")


def test_build_info_names_the_cpu_code(inferno) -> None:  # type: ignore[no-untyped-def]
    assert inferno("--build-info").stdout.splitlines() == ["inferno 0.1.0", f"CPU code: {_core.cpu_code}"]
    assert _core.cpu_code


@pytest.mark.parametrize("given", [None, "7"])
def test_compute_threads_sleep_soon_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", given or "")
    if given is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setattr(sys, "argv", ["inferno", "--version"])
    main()
    assert os.environ["GOMP_SPINCOUNT"] == (given or "1000")


def test_an_engine_that_cannot_run_here_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the extension module says it."""

    def get_command(*_: object) -> click.Command:
        raise ImportError("No code for this processor.")

    monkeypatch.setattr(type(cli), "get_command", get_command)
    monkeypatch.setattr(sys, "argv", ["inferno", "models", "list"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr()) == (1, ("", "error: No code for this processor.\n"))


def test_a_package_that_is_missing_is_no_such_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inferno.cli.models", None)  # as if it were not there
    monkeypatch.setattr(sys, "argv", ["inferno", "models", "list"])
    with pytest.raises(ModuleNotFoundError):
        main()


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
    number = ("--min-tokens", "4", "--max-tokens", "4")  # sampled: the end of the text is one of the tokens
    result = inferno("run", str(tiny_model), "-p", "hello", *number, "--json")
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


# ---- help ----


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """The path of each command and group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


@pytest.mark.parametrize("path", [(), *commands(cli)], ids=" ".join)
def test_help_says_it_all(path: tuple[str, ...]) -> None:
    """In lists of commands a first sentence that is too long would be cut off."""
    context = click.Context(cli, info_name="inferno", terminal_width=80)
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command, context = found, click.Context(found, context, name, terminal_width=80)
    help_text = command.get_help(context)
    assert not [line for line in help_text.splitlines() if line.endswith("...") and line.startswith("  ")]
    assert command.help


def test_help_has_the_exit_codes(inferno) -> None:  # type: ignore[no-untyped-def]
    help_text = inferno("--help").stdout
    for code in (output.EXIT_ERROR, output.EXIT_NOT_FOUND, output.EXIT_UNAVAILABLE):
        assert f" {code} " in help_text.replace("\n", " ")


def test_the_shell_can_complete(tmp_path: Path) -> None:
    environ = {**os.environ, "_INFERNO_COMPLETE": "bash_complete", "COMP_WORDS": "inferno mo", "COMP_CWORD": "1"}
    command = [str(Path(sys.executable).with_name("inferno"))]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines() == ["plain,models", "plain,monitor"]


@pytest.mark.parametrize("arguments", [("config", "show", "--json"), ("config", "validate")])
def test_who_has_read_enough_is_told_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "inferno.cli.main", *arguments]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    result = subprocess.run(command, env=environ, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


# ---- models ----


@pytest.fixture
def models_dir(tmp_path: Path, tiny_model: Path) -> str:
    """Has one model, `tiny`."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(tiny_model.read_bytes())
    return str(tmp_path / "models")


@pytest.mark.parametrize("arguments", [("models", "info"), ("models", "rm"), ("run", "-p", "x"), ("bench",)])
def test_a_mistyped_model_is_corrected(inferno, models_dir: str, arguments: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    result = inferno(*arguments, "tinny", "--models-dir", models_dir)
    assert result.returncode == 3
    assert "Model 'tinny' not found. Did you mean tiny?" in result.stderr


def test_a_model_that_is_not_here(inferno, models_dir: str) -> None:  # type: ignore[no-untyped-def]
    known = inferno("models", "info", "smollm2-135m-instruct", "--models-dir", models_dir)
    assert "To download it: inferno models pull smollm2-135m-instruct" in known.stderr
    unknown = inferno("models", "info", "something-else", "--models-dir", models_dir)
    assert unknown.stderr.strip() == "error: Model 'something-else' not found."


def test_rm_answers_programs(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    inferno("models", "pull", str(tiny_model))
    gone = json.loads(inferno("models", "rm", "tiny", "--json").stdout)
    assert (gone["id"], gone["deleted"]) == ("tiny", True)
    assert not Path(gone["path"]).exists()


def test_models_list_says_what_is_no_model(inferno, tmp_path: Path, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "linked.gguf").symlink_to(tiny_model)
    (tmp_path / "models" / "[red]\x1b[2J.gguf").write_text("")
    told = inferno("models", "list", "--models-dir", str(tmp_path / "models")).stderr
    assert "linked: It leads out of the models directory; give it an alias instead." in told
    assert "[red]" in told
    assert "\x1b" not in told


# ---- run and bench ----


@pytest.fixture
def configured(tmp_path: Path, tiny_model: Path) -> str:
    path = tmp_path / "inferno.toml"
    path.write_text(f'[models.aliases]\nhouse = "{tiny_model}"\n[engine]\ncontext_size = 8\nparallel = 2\n')
    return str(path)


def test_run_takes_models_and_engine_options_from_the_configuration(inferno, configured: str) -> None:  # type: ignore[no-untyped-def]
    arguments = ("run", "house", "-p", "a text that is longer than eight tokens", "--max-tokens", "2")
    small = inferno(*arguments, "--config", configured)
    assert small.returncode == 1
    assert "8" in small.stderr
    assert inferno(*arguments, "--config", configured, "--context-size", "256").returncode == 0


def test_bench_takes_models_from_the_configuration(inferno, configured: str) -> None:  # type: ignore[no-untyped-def]
    sizes = ("--batch", "1", "--prompt-tokens", "16", "--new-tokens", "4")
    assert inferno("bench", "house", *sizes, "--config", configured).returncode == 0
    assert inferno("bench", "house", *sizes, "--config", configured, "--context-size", "8").returncode == 1


def test_bench_parts_the_prompt_from_the_generation() -> None:
    """By the engine's clock, from the last first token on: two runs' difference may be anything."""

    class TwoTexts:
        info = model_info(n_vocab=1000)

        def generate(self, prompts: list[list[int]], *, max_tokens: int, ignore_eos: bool) -> list[Any]:
            assert (len(prompts), {len(prompt) for prompt in prompts}, max_tokens) == (2, {100}, 11)
            return [
                result(queue_ms=0, prefill_ms=400, decode_ms=600),
                result(queue_ms=100, prefill_ms=400, decode_ms=500),
            ]

    def result(**timings: float) -> Result:
        choice = Choice(index=0, text="", finish_reason="length", usage=Usage(), timings=Timings(**timings))
        return Result(id="", model="", created=0, choices=[choice], usage=Usage())

    llm: Any = TwoTexts()
    # The last first token comes after 500 ms, when a sixth of the other text is there.
    assert measure(llm, 2, 100, 11) == {"batch": 2, "prompt_tokens_per_s": 400.0, "generated_tokens_per_s": 36.7}


def test_bench_computes_each_batch_at_once(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    result = inferno("bench", str(tiny_model), "--batch", "1,4", "--parallel", "2")
    assert (result.returncode, "--parallel" in result.stderr) == (2, True)


def test_info_tells_the_memory_of_the_configured_options(inferno, configured: str) -> None:  # type: ignore[no-untyped-def]
    arguments = ("models", "info", "house", "--config", configured, "--json")
    small, large = (json.loads(inferno(*arguments, *more).stdout) for more in ((), ("--parallel", "4")))
    assert small["memory"]["context_bytes"] < large["memory"]["context_bytes"]


def test_a_system_message_makes_it_a_chat(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    def prompt_tokens(*arguments: str) -> int:
        answer = inferno("run", str(tiny_model), "-p", "hi", "--max-tokens", "2", "--json", *arguments).stdout
        return int(json.loads(answer)["usage"]["prompt_tokens"])

    assert prompt_tokens() < prompt_tokens("--chat") < prompt_tokens("--system", "Be brief.")


def test_what_does_not_go_together(inferno, tiny_model: Path) -> None:  # type: ignore[no-untyped-def]
    result = inferno("run", str(tiny_model), "-p", "hi", "--raw", "--system", "x")
    assert (result.returncode, "--system" in result.stderr) == (2, True)


def test_a_conversation(tmp_path: Path, tiny_model: Path) -> None:
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    for stream in ("--stream", "--no-stream"):
        arguments = ("run", str(tiny_model), "--max-tokens", "3", "--context-size", "256", stream)
        with Terminal(*arguments, env=environ) as terminal:
            terminal.until("write a message, /clear to start over, Ctrl-D to leave.")
            for message in ("hello", "/clear", "hello again"):
                terminal.until("> ")
                terminal.press(f"{message}\r")
            terminal.until("> ")
            terminal.press("\x04")
            assert terminal.ended() == 0


def test_a_message_that_does_not_fit_does_not_end_the_conversation(tmp_path: Path, tiny_model: Path) -> None:
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    with Terminal("run", str(tiny_model), "--max-tokens", "3", "--context-size", "256", env=environ) as terminal:
        terminal.until("> ")
        terminal.press(f"{'long ' * 300}\r")
        terminal.until("the context holds 256. /clear starts over.")
        for message in ("/clear", "hello"):
            terminal.until("> ")
            terminal.press(f"{message}\r")
        terminal.until("> ")
        terminal.press("\x04")
        assert terminal.ended() == 0


def test_ctrl_c_ends_an_answer_and_not_the_conversation(tmp_path: Path, smollm2: Path) -> None:
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    arguments = ("run", str(smollm2), "--min-tokens", "900", "--max-tokens", "900", "--context-size", "1024")
    with Terminal(*arguments, env=environ) as terminal:
        terminal.until("> ")
        terminal.press("Tell me a story\r")
        terminal.until(r"Tell me a story\s+\w+")
        terminal.press("\x03")
        terminal.until("> ")
        terminal.press("\x04")
        assert terminal.ended() == 0
        assert "Traceback" not in terminal.text


def test_ctrl_c_ends_a_text_with_its_exit_code(tmp_path: Path, smollm2: Path) -> None:
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    arguments = ("--min-tokens", "900", "--max-tokens", "900", "--context-size", "1024")
    with Terminal("run", str(smollm2), "-p", "Once upon a time", *arguments, env=environ) as terminal:
        terminal.until(r"\w+")
        terminal.press("\x03")
        assert terminal.ended() == output.EXIT_INTERRUPTED
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("option", ["--raw", "--json"])
def test_what_a_conversation_cannot_be(tmp_path: Path, tiny_model: Path, option: str) -> None:
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    with Terminal("run", str(tiny_model), option, env=environ) as terminal:
        assert terminal.ended() == 2
        assert f"{option} needs a" in terminal.text


# ---- serve ----


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--bind", "localhost:0", "--port", "1"), 2, "--bind says both"),
        (("--bind", "localhost:0", "--host", "localhost"), 2, "--bind says both"),
        (("--bind", "localhost"), 2, "HOST:PORT"),
        (("--bind", ":8080"), 2, "HOST:PORT"),
        (("--alias", "x"), 2, "ID=FILE"),
        (("--alias", "x=nothing.gguf"), 3, "--alias x: there is no file or model nothing.gguf."),
        (("--alias", "x=tinny"), 3, "--alias x: there is no file or model tinny."),
        (("--model", "tinny"), 3, "Model 'tinny' not found. Did you mean tiny?"),
        (("--model", "smollm2-135m-instruct"), 3, "inferno models pull smollm2-135m-instruct"),
        (("--port", "99999"), 1, "server.port"),
        (("--log-level", "loud"), 1, "log.level"),
        (("--log-format", "xml"), 1, "log.format"),
        (("--prot", "1"), 2, "--port"),
        (("--gpu-layers", "-2"), 1, "engine.gpu_layers"),
        (("--load-mode", "swap"), 1, "engine.load_mode must be one of read, mmap, mlock"),
    ],
)
def test_serve_refuses_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    models_dir: str,
    arguments: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["inferno", "serve", "--models-dir", models_dir, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    stdout, stderr = capsys.readouterr()
    assert (ended.value.code, stdout) == (code, "")
    assert told in stderr


def test_a_port_that_is_taken(inferno, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = inferno("serve", "--port", str(other.getsockname()[1]))
    assert result.returncode == 4
    assert "cannot be listened on" in result.stderr
