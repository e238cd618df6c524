"""What a server says of itself at one moment."""

from __future__ import annotations

import time

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from inferno import errors
from inferno.cli.client import Client
from inferno.telemetry.snapshot import Samples, by_name


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of GET /metrics, and when it came: `at` by this machine's monotonic clock, `time` in UTC seconds since
    1970."""

    samples: Samples
    at: float
    time: float


def take(server: Client) -> Sample:
    """Raises what the client raises, and InternalError for an answer that is not Inferno's."""
    text = server.text("/metrics")
    return parse(text, at=time.monotonic(), now=time.time(), url=server.url)


def parse(text: str, *, at: float, now: float, url: str) -> Sample:
    """Raises InternalError for what is not Inferno's metrics."""
    try:
        samples = by_name(text_string_to_metric_families(text))
    except (ValueError, KeyError, IndexError):  # the parser's ways to say no
        samples = {}
    if "inferno_build_info" not in samples or "inferno_start_time_seconds" not in samples:
        raise errors.InternalError(f"{url}/metrics did not answer as this version of Inferno does.")
    return Sample(samples=samples, at=at, time=now)
