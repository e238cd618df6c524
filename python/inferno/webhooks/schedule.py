"""When a delivery is tried again. Pure: attempts, ages and chance are arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from inferno.webhooks.outcome import Outcome

#: Seconds before each attempt, counted from the one before.
DELAYS = (0.0, 30.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0)
#: No attempt is planned later than this many seconds after the first was due.
LONGEST = 86400.0
_JITTER = 0.1
_GONE = 410
_BUSY = frozenset({429, 502, 503, 504})


class Next(msgspec.Struct, frozen=True):
    """What to do after an attempt.

    `delivered`: nothing more. `retry`: again in `delay_s` seconds. `dead`: give up. `disable`: give up, and send
    nothing more to this endpoint.
    """

    action: Literal["delivered", "retry", "dead", "disable"]
    delay_s: float = 0.0


def after(outcome: Outcome, *, attempts: int, age_s: float, draw: Callable[[], float]) -> Next:
    """What follows `outcome`, which ended attempt number `attempts` (from 1), `age_s` seconds after the first was due.

    `draw` gives numbers from 0 to 1; they spread retries of many deliveries by 10 % to either side.
    """
    if outcome.status is not None and 200 <= outcome.status < 300:
        return Next("delivered")
    if outcome.status == _GONE:
        return Next("disable")
    left = LONGEST - age_s
    if attempts >= len(DELAYS) or left <= 0:
        return Next("dead")
    delay = DELAYS[attempts] * (1 + _JITTER * (2 * draw() - 1))
    return Next("retry", min(max(delay, _asked(outcome)), left))


def _asked(outcome: Outcome) -> float:
    """The wait that a busy receiver asks for; it postpones, and never hastens."""
    return outcome.retry_after or 0.0 if outcome.status in _BUSY else 0.0
