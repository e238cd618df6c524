"""The command: ask again and again, show what came of it."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import click
import msgspec
from rich.console import RenderableType
from rich.live import Live

from inferno import errors
from inferno.cli import output
from inferno.cli.client import connect, server_options
from inferno.cli.monitor.keyboard import keys
from inferno.cli.monitor.report import report
from inferno.cli.monitor.sample import Sample, take
from inferno.cli.monitor.view import frame

#: Seconds of silence that count as no answer.
_ANSWER_S = 10.0
#: How often the width of the terminal is looked at.
_TICK_S = 0.25
#: Below this width there is no room for boxes.
_NARROW = 60


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The last two samples there are, and what kept the next from coming."""

    before: Sample | None
    now: Sample | None
    problem: errors.InfernoError | None = None


#: What the screen is told: a key, what the server said, or why nobody asks it any more.
Event: TypeAlias = Reading | str | Exception


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look, from 0.2 to 3600.",
)
@click.option("--once", is_flag=True, help="Print what one interval had, and leave.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, for each interval.")
@server_options
def monitor(interval: float, once: bool, as_json: bool, **where: Any) -> None:
    """Watch a running server.

    Throughput, latency, queue, batches and models, on a terminal until `q`; elsewhere a plain frame each interval.
    """
    with connect(**where, answer_s=_ANSWER_S) as server:
        found = readings(lambda: take(server), interval)
        printed = _json(server.url) if as_json else _plain(server.url)
        if once:
            printed(_first(found))
        elif as_json or not output.out.is_terminal or output.out.is_dumb_terminal:
            _print_all(found, printed)
        else:
            _watch(found, server.url)


def readings(ask: Callable[[], Sample], interval: float) -> Iterator[Reading]:
    """What the server says, every `interval` seconds, for ever. What is wrong at the start will not mend itself, a
    server that is away may: raises all but ServiceUnavailable before the first answer, nothing after it."""
    before: Sample | None = None
    now: Sample | None = None
    while True:
        due = time.monotonic() + interval
        try:
            before, now = now, ask()
            yield Reading(before=before, now=now)
        except errors.InfernoError as error:
            if now is None and not isinstance(error, errors.ServiceUnavailable):
                raise
            yield Reading(before=before, now=now, problem=error)
        time.sleep(max(0.0, due - time.monotonic()))


def _first(found: Iterator[Reading]) -> Reading:
    """The first with rates. Raises what keeps it from coming."""
    for reading in found:
        if reading.problem is not None:
            raise reading.problem
        if reading.before is not None:
            return reading
    raise AssertionError("readings never end")


def _print_all(found: Iterator[Reading], printed: Callable[[Reading], None]) -> None:
    """Until Ctrl-C."""
    try:
        for reading in found:
            if reading.before is not None or reading.problem is not None:
                printed(reading)
    except KeyboardInterrupt:
        return


def _json(url: str) -> Callable[[Reading], None]:
    def printed(reading: Reading) -> None:
        fields: dict[str, Any] = {"timestamp": datetime.now(UTC), "url": url, "error": None}
        if reading.problem is not None:
            fields["error"] = {"code": reading.problem.code, "message": reading.problem.message}
        elif reading.now is not None:
            fields |= msgspec.structs.asdict(report(reading.before, reading.now))
        sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
        sys.stdout.flush()

    return printed


def _plain(url: str) -> Callable[[Reading], None]:
    def printed(reading: Reading) -> None:
        current = reading if reading.problem is None else Reading(before=None, now=None, problem=reading.problem)
        output.out.print(_drawn(current, url, boxed=False), "")

    return printed


def _drawn(reading: Reading, url: str, *, boxed: bool, hint: str = "") -> RenderableType:
    problem = None if reading.problem is None else f"{reading.problem.message} Trying again."
    width = output.out.width
    return frame(reading.before, reading.now, url=url, problem=problem, hint=hint, width=width, boxed=boxed)


# ---- on a terminal ----


def _watch(found: Iterator[Reading], url: str) -> None:
    """Until `q` or Ctrl-C. A thread asks, so that a server that is slow to answer holds up no key."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    threading.Thread(target=_ask, args=(found, events.put), daemon=True).start()
    with (
        contextlib.suppress(KeyboardInterrupt),
        keys(events.put),
        Live(console=output.out, screen=True, auto_refresh=False) as live,
    ):
        _show(events, lambda reading: live.update(_on_screen(reading, url), refresh=True))


def _ask(found: Iterator[Reading], tell: Callable[[Event], None]) -> None:
    try:
        for reading in found:
            tell(reading)
    except Exception as error:
        tell(error)


def _show(events: queue.SimpleQueue[Event], draw: Callable[[Reading], None]) -> None:
    """Draws what comes, and again when the terminal has another size. Raises what asking raised."""
    reading = Reading(before=None, now=None)
    drawn: tuple[Reading, object] | None = None
    while True:
        if drawn != (reading, output.out.size):
            drawn = reading, output.out.size
            draw(reading)
        try:
            event = events.get(timeout=_TICK_S)
        except queue.Empty:
            continue
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Reading):
            reading = event
        elif event in ("q", "Q"):
            return


def _on_screen(reading: Reading, url: str) -> RenderableType:
    return _drawn(reading, url, boxed=output.out.width >= _NARROW, hint="q leaves")
