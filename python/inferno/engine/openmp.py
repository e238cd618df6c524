"""How compute threads wait for one another (libgomp)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Rounds that a thread spins before it sleeps. Much more, as libgomp has it by itself, is no faster on an idle machine
#: and far slower beside anything else that computes: threads then wait for one another's time slices
#: (docs/performance.md).
ENVIRONMENT: Final = {"GOMP_SPINCOUNT": "1000"}


def sleep_soon() -> None:
    """For this process and those it starts, unless the environment says otherwise: before the engine is imported, which
    reads it.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def sleeping_soon() -> Iterator[None]:
    """The same for an engine that is imported within; the environment of somebody else's process is left as it was."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
