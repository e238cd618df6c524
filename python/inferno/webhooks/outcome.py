"""What one attempt to deliver came to."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

#: Why there was no answer.
Failure = Literal[
    "invalid_url",
    "unresolvable",
    "forbidden_address",
    "connect_failed",
    "tls_failed",
    "timed_out",
    "bad_answer",
    "internal_error",
]

_LONGEST_WAIT = 10**9


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`status` when the receiver answered, else `error`. `retry_after`, in seconds, is what the receiver asked for,
    however absurd; `seconds` is how long the attempt took."""

    seconds: float
    status: int | None = None
    retry_after: float | None = None
    error: Failure | None = None


def retry_after_seconds(value: str, now: float) -> float | None:
    """The wait that a Retry-After header asks for (RFC 9110, 10.2.3): a number of seconds, or a date compared with
    `now` in Unix time. Negative when it is over; None when the value is neither."""
    value = value.strip()
    if re.fullmatch(r"-?[0-9]+", value):
        # So many digits that they need not be read.
        size = _LONGEST_WAIT if len(value) > 10 else abs(int(value))
        return float(-size if value.startswith("-") else size)
    try:
        date = parsedate_to_datetime(value[:64])
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
