"""What loading a model would take, asked of llama.cpp in a process of its own: it aborts on some files."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferno import errors
from inferno.engine.worker import worker_environment

_TIMEOUT_S = 60.0
_SCRIPT = """
import json, sys
from inferno import _core
print(json.dumps(_core.estimate_memory(sys.argv[1], json.loads(sys.argv[2]))))
"""


async def estimate_memory(path: Path, options: Mapping[str, Any]) -> dict[str, int]:
    """`model_bytes`, `context_bytes`, `compute_bytes`, `total_bytes`. Raises InvalidRequest for an unusable file."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SCRIPT, str(path), json.dumps(dict(options)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=worker_environment(os.environ),
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise errors.InvalidRequest("The file is not a model that can be loaded.", field="model")
    estimate: dict[str, int] = json.loads(output)
    return estimate
