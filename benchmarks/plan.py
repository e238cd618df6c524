"""What is going to be run, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.workloads.base import Setting, Workload


@dataclass(frozen=True)
class Group:
    """Workloads of one file that run on the same started peers, or one that starts them anew for each round."""

    file: str
    setting: Setting
    workloads: tuple[Workload, ...]

    @property
    def fresh(self) -> bool:
        return self.workloads[0].fresh

    def peers(self, wanted: list[str]) -> list[str]:
        """Those of the wanted peers that any of the workloads is for."""
        return [name for name in wanted if any(name in workload.peers for workload in self.workloads)]


def groups(workloads: list[Workload], files: list[str]) -> list[Group]:
    """In the order of the workloads; those that need the same peers come together."""
    together: dict[tuple[object, ...], list[Workload]] = {}
    for workload in workloads:
        for file in workload.files:
            if file in files:
                alone = workload.name if workload.fresh else ""
                together.setdefault((file, workload.setting, alone), []).append(workload)
    return [Group(str(key[0]), items[0].setting, tuple(items)) for key, items in together.items()]


def alternating(names: list[str], round_number: int) -> Iterator[str]:
    """ABBA: what comes first in one round comes last in the next."""
    return iter(names) if round_number % 2 == 0 else reversed(names)
