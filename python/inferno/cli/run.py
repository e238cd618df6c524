"""`inferno run`: one answer, or a conversation, in this process."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from inferno import _core, errors
from inferno.cli import options, output
from inferno.llm import LLM, TextStream

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
@options.config_option
@options.models_dir_option
@options.json_option
@options.engine_options
@_sampling_options
def run(
    model: str,
    prompt: str | None,
    stream: bool,
    chat: bool | None,
    system: str | None,
    stop: tuple[str, ...],
    config_file: Path | None,
    models_dir: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Generate text with MODEL, or talk with it.

    MODEL is an id or a GGUF file. The text that is continued comes from -p, or from standard input; on a terminal
    without -p there is a conversation.
    """
    interactive = prompt is None and sys.stdin.isatty()
    chat = _is_chat(chat, system, interactive, as_json)
    flags = options.engine_flags(given)
    if flags["engine.parallel"] is None:
        flags["engine.parallel"] = 1  # a server's number would only take memory
    settings = options.settings_for(config_file, models_dir, **flags)
    sampling = _core.validate_sampling({**given, "stop": list(stop) or None})
    text = prompt if prompt is not None or interactive else sys.stdin.read()
    _core.set_log_level(1)
    with LLM(options.model_file(model, settings), **options.chosen_engine_options(settings)) as llm:
        if interactive:
            _converse(llm, system, sampling, stream)
        else:
            messages = _messages(system, text or "") if chat else None
            _answer(llm, text or "", messages, sampling, stream, as_json)


def _is_chat(chat: bool | None, system: str | None, interactive: bool, as_json: bool) -> bool:
    """Whether the model's template is used: asked for, or implied. Raises UsageError for what does not go together."""
    if system is not None and chat is False:
        raise click.UsageError("--system is of a chat; it does not go with --raw.")
    if interactive and chat is False:
        raise click.UsageError("--raw needs a text to continue: give -p, or standard input.")
    if interactive and as_json:
        raise click.UsageError("--json needs a prompt: give -p, or standard input.")
    return bool(chat) or system is not None or interactive


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
    if as_json:
        result = running.result()
        choice = result.choices[0]
        usage = {"prompt_tokens": result.usage.prompt_tokens, "completion_tokens": result.usage.completion_tokens}
        output.print_json({"text": result.text, "finish_reason": choice.finish_reason, "usage": usage})
    else:
        _print(running, stream, [])


def _print(running: TextStream, stream: bool, pieces: list[str]) -> None:
    """The text, as it comes or at its end. It is also put into `pieces`, which Ctrl-C leaves as they are."""
    for piece in running:
        pieces.append(piece)
        if stream:
            sys.stdout.write(piece)
            sys.stdout.flush()
    print("" if stream else "".join(pieces))


def _converse(llm: LLM, system: str | None, sampling: dict[str, Any], stream: bool) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() then edits lines and knows earlier ones)
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
            asked = [*messages, {"role": "user", "content": text}]
            try:
                told = _answered(llm.chat_stream(asked, **sampling), stream)
            except errors.ContextLengthExceeded as error:
                output.err.print(f"{error.message} /clear starts over.", highlight=False)
            else:
                messages = [*asked, {"role": "assistant", "content": told}]


def _answered(running: TextStream, stream: bool) -> str:
    """The text, or what there is of it when Ctrl-C ends it."""
    pieces: list[str] = []
    try:
        _print(running, stream, pieces)
    except KeyboardInterrupt:
        running.cancel()
        print()
    return "".join(pieces)
