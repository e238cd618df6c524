"""What loading a model would take, asked of the engine in a process of its own: llama.cpp aborts on some files."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from inferno import errors
from inferno.engine.frames import Failure
from inferno.engine.worker import worker_environment

_COMMAND = (sys.executable, "-P", "-m", "inferno.engine.estimate")
_TIMEOUT_S = 60.0


class _Answer(msgspec.Struct, omit_defaults=True):
    memory: dict[str, Any] = {}
    failure: Failure | None = None


async def estimate_memory(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """What loading `path` would take: the fields of `inferno._core.Memory`.

    Raises InvalidRequest for a file that cannot be loaded, whatever happens to the process that looks at it.
    """
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=worker_environment(os.environ),
        start_new_session=True,
    )
    question = msgspec.json.encode((str(path), dict(options)))
    try:
        output, _ = await asyncio.wait_for(process.communicate(question), _TIMEOUT_S)
    except TimeoutError:
        raise errors.InvalidRequest("The model file takes too long to examine.", field="model") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise errors.InvalidRequest("The model file cannot be loaded.", field="model")
    answer = msgspec.json.decode(output, type=_Answer)
    if answer.failure is not None:
        raise answer.failure.exception()
    return answer.memory


def _main() -> None:
    from inferno import _core

    _core.set_log_level(0)
    path, options = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[str, dict[str, Any]])
    try:
        answer = _Answer(memory=dict(_core.estimate_memory(path, options)))
    except Exception as error:
        answer = _Answer(failure=Failure.of(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    _main()
