"""How compute threads wait for one another (libgomp), for processes that are Inferno's own."""

from __future__ import annotations

import os
from typing import Final

#: Rounds that a thread spins before it sleeps. Much more, as libgomp has it by itself, is no faster on an idle machine
#: and far slower beside anything else that computes: threads then wait for one another's time slices
#: (docs/performance.md).
ENVIRONMENT: Final = {"GOMP_SPINCOUNT": "1000"}


def sleep_soon() -> None:
    """For this process, unless its environment says otherwise: before the engine is imported, which reads it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
