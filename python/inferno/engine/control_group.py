"""What the control groups that this process is in leave it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def memory_limit(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes; None when nothing is said. Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.max"""
    limits = []
    with contextlib.suppress(OSError):
        group = _group(own.read_text())
        for around in (group, *group.parents):  # a group has what the groups around it leave
            with contextlib.suppress(OSError, ValueError):  # the file says "max"
                limits.append(int((groups / around / "memory.max").read_text()))
    return min(limits, default=None)


def _group(own: str) -> Path:
    """The path in the line "0::/path"."""
    paths = [line.removeprefix("0::/") for line in own.splitlines() if line.startswith("0::/")]
    return Path(*paths)
