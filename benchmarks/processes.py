"""What the kernel says of processes and processors: /proc, and so Linux only."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER, _NICE, _SYSTEM, _IDLE, _IOWAIT, _IRQ, _SOFTIRQ, _STEAL = range(8)


def family(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they still live."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Processor time that the processes have used, all their threads included."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def peak_rss_mib(pids: list[int]) -> float:
    """The sum of each process's own highest resident memory; what they share counts once for each."""
    return sum(_field_kib(f"/proc/{pid}/status", "VmHWM") for pid in pids) / 1024


def pss_mib(pids: list[int]) -> float:
    """Resident memory now; what they share counts once."""
    return sum(_field_kib(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids) / 1024


def _field_kib(path: str, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


@dataclass(frozen=True)
class MachineTimes:
    """Seconds that all processors together have spent, since the machine started."""

    busy: float
    stolen: float
    total: float

    @classmethod
    def now(cls) -> MachineTimes:
        with open("/proc/stat") as file:
            ticks = [int(item) for item in file.readline().split()[1:9]]
        total = sum(ticks) / _TICKS_PER_S
        idle = (ticks[_IDLE] + ticks[_IOWAIT]) / _TICKS_PER_S
        stolen = ticks[_STEAL] / _TICKS_PER_S
        return cls(total - idle - stolen, stolen, total)


class Watch:
    """What processes, this client and everybody else used while the `with` block ran."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.usage: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._before = self._counters()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        machine, peer, client = self._counters()
        machine_before, peer_before, client_before = self._before
        total = max(machine.total - machine_before.total, 1e-9)
        peer_s, client_s = peer - peer_before, client - client_before
        others_s = max(machine.busy - machine_before.busy - peer_s - client_s, 0.0)
        pids = family(self._pid)
        self.usage = {
            "peer_cpu_s": peer_s,
            "client_share": client_s / total,
            "others_share": others_s / total,
            "steal_share": (machine.stolen - machine_before.stolen) / total,
            "peak_rss_mib": peak_rss_mib(pids),
            "pss_mib": pss_mib(pids),
        }

    def _counters(self) -> tuple[MachineTimes, float, float]:
        return MachineTimes.now(), cpu_seconds(family(self._pid)), time.process_time()
