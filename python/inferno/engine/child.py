"""Questions to the engine in a process of its own: llama.cpp ends it over some files, and drivers of GPUs crash.

The question goes to its standard input, progress and the answer come back on its standard output, a line of JSON each.
Interrupting the wait ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from inferno import errors
from inferno.engine.frames import Failure
from inferno.engine.worker import worker_environment

_COMMAND = (sys.executable, "-P", "-m", "inferno.engine.child")

#: Called with (done, all).
Progress = Callable[[int, int], object]


class _Line(msgspec.Struct, omit_defaults=True):
    progress: tuple[int, int] | None = None
    answer: Any = None
    failure: Failure | None = None


class Died(Exception):
    """The process ended without an answer."""


def reduced_environment() -> dict[str, str]:
    """What of ours a process gets that works on others' files."""
    return worker_environment(os.environ)


async def ask(function: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
    """What `inferno._core`'s function of that name returns. Raises what it raises, Died and TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=reduced_environment(),
        start_new_session=True,
    )
    try:
        question = msgspec.json.encode((function, arguments))
        output, _ = await asyncio.wait_for(process.communicate(question), timeout_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _answer(output.splitlines())


def call(function: str, arguments: Mapping[str, Any], progress: Progress = lambda done, total: None) -> Any:
    """What `inferno._core`'s function of that name returns. Raises what it raises, and InvalidRequest when the process
    dies of it."""
    with subprocess.Popen(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=reduced_environment(),
        start_new_session=True,  # Ctrl-C is ours to pass on
    ) as process:
        try:
            return _conversation(process, msgspec.json.encode((function, arguments)), progress)
        finally:
            process.kill()


def _conversation(process: subprocess.Popen[bytes], question: bytes, progress: Progress) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once
        process.stdin.write(question)
        process.stdin.close()
    try:
        return _answer(process.stdout, progress)
    except Died:
        raise errors.InvalidRequest("The model file broke the process that worked on it.", field="model") from None


def _answer(lines: Iterable[bytes], progress: Progress = lambda done, total: None) -> Any:
    for raw in lines:
        line = msgspec.json.decode(raw, type=_Line)
        if line.failure is not None:
            raise line.failure.exception()
        if line.progress is None:
            return line.answer
        progress(*line.progress)
    raise Died


def _say(line: _Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def _main() -> None:
    from inferno import _core

    _core.set_log_level(0)
    function, arguments = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[str, dict[str, Any]])
    if function == "quantize":
        arguments["progress"] = lambda done, total: _say(_Line(progress=(done, total)))
    try:
        _say(_Line(answer=getattr(_core, function)(**arguments)))
    except Exception as error:
        _say(_Line(failure=Failure.of(error)))


if __name__ == "__main__":
    _main()
