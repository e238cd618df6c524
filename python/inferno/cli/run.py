"""`inferno run`: one answer, or a conversation, in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from inferno import _core, errors
from inferno.cli import options, output
from inferno.llm import LLM, TextStream
from inferno.request import Result

_FLAGS = {"integer": int, "number": float}


def _sampling_options(command: Any) -> Any:
    for row in reversed(_core.sampling_fields()):
        if row["type"] in _FLAGS:
            flag = "--" + row["name"].replace("_", "-")
            command = click.option(flag, row["name"], type=_FLAGS[row["type"]], default=None, help=row["help"])(command)
    return command


@click.command()
@click.argument("model")
@click.option("-p", "--prompt", help="What to continue; without it, standard input, or a conversation on a terminal.")
@click.option("--stream/--no-stream", default=True, help="Print text as it comes.")
@click.option("--chat/--raw", default=None, help="Use the model's chat template, or continue the bare text.")
@click.option("--system", help="System message of a chat.")
@click.option("--stop", multiple=True, help="Text that ends the generation; may be repeated.")
@options.models_dir_option
@options.json_option
@options.engine_options
@_sampling_options
def run(model: str, prompt: str | None, stream: bool, chat: bool | None, as_json: bool, **given: Any) -> None:
    """Generate text with MODEL (an id or a GGUF file)."""
    system, stop, models_dir = given.pop("system"), list(given.pop("stop")), given.pop("models_dir")
    engine = {key.partition(".")[2]: v for key, v in options.engine_flags(given).items() if v is not None}
    sampling = _core.validate_sampling({**given, "stop": stop or None})
    interactive = prompt is None and sys.stdin.isatty()
    text = prompt if prompt is not None or interactive else sys.stdin.read()
    _core.set_log_level(1)
    with LLM(_path_or_id(model), models_dir=models_dir, **{"parallel": 1, **engine}) as llm:
        if interactive:
            _converse(llm, system, sampling)
        else:
            messages = _messages(system, text or "") if chat else None
            _answer(llm, text or "", messages, sampling, stream and not as_json, as_json)


def _path_or_id(model: str) -> str | Path:
    return Path(model) if model.endswith(".gguf") else model


def _messages(system: str | None, text: str) -> list[dict[str, str]]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": text}]


def _answer(
    llm: LLM,
    text: str,
    messages: list[dict[str, str]] | None,
    sampling: dict[str, Any],
    stream: bool,
    as_json: bool,
) -> None:
    running = llm.chat_stream(messages, **sampling) if messages else llm.stream(text, **sampling)
    result = _print_stream(running) if stream else running.result()
    if as_json:
        choice = result.choices[0]
        usage = {"prompt_tokens": result.usage.prompt_tokens, "completion_tokens": result.usage.completion_tokens}
        output.print_json({"text": result.text, "finish_reason": choice.finish_reason, "usage": usage})
    elif not stream:
        print(result.text)


def _print_stream(running: TextStream) -> Result:
    try:
        for piece in running:
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        running.cancel()
    print()
    return running.result()


def _converse(llm: LLM, system: str | None, sampling: dict[str, Any]) -> None:
    if not llm.info.chat_template:
        raise errors.InvalidRequest("The model has no chat template; give a prompt with -p.", field="model")
    output.err.print(f"{llm.id}: write a message, /clear to start over, Ctrl-D to leave.")
    head = [{"role": "system", "content": system}] if system else []
    messages = list(head)
    while True:
        try:
            text = input("> ")
        except EOFError:
            return
        if text.strip() == "/clear":
            messages = list(head)
        elif text.strip():
            messages.append({"role": "user", "content": text})
            result = _print_stream(llm.chat_stream(messages, **sampling))
            messages.append({"role": "assistant", "content": result.text})
