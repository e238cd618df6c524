"""Who asks, and in which trace."""

from __future__ import annotations

import msgspec


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a transport knows of where an inference comes from. `traceparent` and `tracestate` are the values of
    the headers of that name (W3C Trace Context), empty when there are none; they may be garbage. Nobody waits for the
    answer when `awaited` is False, as with the requests of a batch."""

    user_id: str
    request_id: str
    traceparent: str = ""
    tracestate: str = ""
    awaited: bool = True
