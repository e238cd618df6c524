"""Whether a model fits into the host's memory, said before any is taken, and what would fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from inferno import errors
from inferno.engine.control_group import memory_limit

#: A suggested context is a multiple of this, and smaller ones are not suggested.
_STEP = 256


def check(memory: Mapping[str, Any], available: int, name: str) -> None:
    """Raise ServiceUnavailable when what `inferno._core.estimate_memory` answered is more than `available` bytes."""
    if memory["host_bytes"] > available:
        raise no_room(memory, available, name)


def no_room(memory: Mapping[str, Any], available: int, name: str) -> errors.ServiceUnavailable:
    """The refusal, with both numbers and what may help."""
    needed = memory["host_bytes"]
    message = f"Model '{name}' needs {needed >> 20} MiB; {available >> 20} MiB can be had."
    if hint := _hint(memory, available):
        message = f"{message} {hint}"
    return errors.ServiceUnavailable(message, needed_bytes=needed, available_bytes=available, retry_after=10)


def _hint(memory: Mapping[str, Any], available: int) -> str:
    """What the KV cache may take is proportional to the context; the rest hardly changes with it."""
    context_size, context_bytes = memory.get("context_size", 0), memory.get("context_bytes", 0)
    if not context_size or not context_bytes:
        return ""
    room = available - (memory["host_bytes"] - context_bytes)
    fitting = int(context_size * room / context_bytes) // _STEP * _STEP
    if fitting >= _STEP:
        return f"A context_size of {fitting} would fit, or a smaller parallel."
    return "A smaller model, or one that is quantized further, would fit."


def physical_memory() -> int:
    """Bytes of memory in this machine, or in the control group that confines us."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    confined = memory_limit()
    return physical if confined is None else min(physical, confined)
