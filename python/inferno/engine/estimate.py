"""What loading a model would take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferno import errors
from inferno.engine import child

_TIMEOUT_S = 60.0


async def estimate_memory(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """What loading `path` would take: the fields of `inferno._core.Memory`.

    Raises InvalidRequest for a file that cannot be loaded, whatever happens to the process that looks at it.
    """
    question = {"path": str(path), "options": dict(options)}
    try:
        memory: dict[str, Any] = await child.ask("estimate_memory", question, _TIMEOUT_S)
    except TimeoutError:
        raise errors.InvalidRequest("The model file takes too long to examine.", field="model") from None
    except child.Died:
        raise errors.InvalidRequest("The model file cannot be loaded.", field="model") from None
    return memory
