"""When a worker that died is started again, and when no more."""

from __future__ import annotations

from collections import deque

import msgspec


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, and a number of crashes."""

    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0
    #: A worker that lived this long starts the delays from the beginning.
    healthy_s: float = 60.0
    #: This many crashes within the window are the last.
    max_crashes: int = 5
    crash_window_s: float = 300.0


class Restarts:
    """Counts crashes by a monotonic clock that the caller reads."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._crashes: deque[float] = deque()
        self._delays = 0

    def after_crash(self, now: float, lived_s: float) -> float | None:
        """Seconds to wait before the next start; None to give up. `lived_s`: how long the worker served."""
        policy = self._policy
        self._crashes.append(now)
        while now - self._crashes[0] > policy.crash_window_s:
            self._crashes.popleft()
        if len(self._crashes) >= policy.max_crashes:
            return None
        if lived_s >= policy.healthy_s:
            self._delays = 0
        delay = min(policy.first_delay_s * 2.0**self._delays, policy.longest_delay_s)
        self._delays += 1
        return delay
