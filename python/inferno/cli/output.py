"""How commands talk: tables for people, JSON for programs, errors on stderr with an exit code."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from inferno import errors

#: Exit codes beside 0 and click's 2 for wrong usage.
EXIT_ERROR = 1
EXIT_NOT_FOUND = 3
EXIT_UNAVAILABLE = 4
EXIT_INTERRUPTED = 130

out = Console()
err = Console(stderr=True)


def exit_code(error: errors.InfernoError) -> int:
    if isinstance(error, errors.NotFound):
        return EXIT_NOT_FOUND
    if isinstance(error, errors.ServiceUnavailable):
        return EXIT_UNAVAILABLE
    return EXIT_ERROR


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """The first column has what other commands take: it is folded last, beyond half the width."""
    columns, cells = list(columns), [[plain(str(cell)) for cell in row] for row in rows]
    longest = max(len(row[0]) for row in (columns, *cells))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", width=None if index else min(longest, out.width // 2))
    for row in cells:
        table.add_row(*map(escape, row))
    out.print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    print_table(("", ""), fields.items())


def plain(text: str) -> str:
    """Without what would steer a terminal: others have chosen ids, names and messages."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def when(seconds: float | None) -> str:
    """A time in UTC; empty for None."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def human_bytes(n: int) -> str:
    value = float(n)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def download_progress(title: str) -> tuple[Progress, Callable[[int, int | None], None]]:
    """A progress bar on stderr (nothing unless it is a terminal), and the function that moves it."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    task = bar.add_task(title, total=None)
    return bar, lambda done, total: bar.update(task, completed=done, total=total)


def count_progress(title: str) -> tuple[Progress, Callable[[int, int | None], None]]:
    """Like `download_progress`, of things instead of bytes."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err, disable=not err.is_terminal
    )
    task = bar.add_task(escape(title), total=None)
    return bar, lambda done, total: bar.update(task, completed=done, total=total)


class SuggestingGroup(click.Group):
    """Says what a mistyped command may have meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1) if args else []
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from None
