"""How the C++ engine is opened. A worker process imports this, and has no use for an event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from inferno._core import Engine as Core

OpenCore: TypeAlias = "Callable[[str, dict[str, Any], Callable[[float], bool] | None], Core]"


def open_core(path: str, options: dict[str, Any], progress: Callable[[float], bool] | None) -> Core:
    """The C++ engine, imported when first needed: what only talks to workers never pays for it."""
    from inferno import _core

    return _core.Engine(path, options, progress)
