"""What `inferno monitor` shows: a function of two samples, drawn for a width."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from inferno.cli import output
from inferno.cli.monitor.rates import Latency
from inferno.cli.monitor.report import Batches, Engine, Latencies, Model, Report, Throughput, report
from inferno.cli.monitor.sample import Sample

#: Columns from which on the sections stand four, and two, in a row.
_FOUR = 140
_TWO = 76
#: Columns from which on the models show what their engines are at.
_DETAILED = 100
#: Shares of the four in a row, and the lines that each has.
_RATIOS = (34, 39, 36, 31)
_LINES = 5
_BAR = 9
_MEASURING = Text("measuring ...", style="dim")
_STYLES = {"ready": "green", "loading": "yellow", "restarting": "yellow", "failed": "bold red"}


def frame(
    before: Sample | None,
    now: Sample | None,
    *,
    url: str,
    problem: str | None = None,
    hint: str = "",
    width: int = 80,
    boxed: bool = True,
) -> RenderableType:
    """One picture. `now` is None for a server that has not answered yet; `problem` says why there is nothing newer;
    `hint` stands below. Without boxes it is for what is no screen."""
    shown = None if now is None else report(before, now)
    clock = "" if now is None else datetime.fromtimestamp(now.time).strftime("%H:%M:%S")
    parts: list[RenderableType] = [_head(url, shown, clock)]
    if problem is not None:
        since = f" These figures are of {clock}." if clock else ""
        parts.append(Text(output.plain(problem) + since, style="bold red"))
    if shown is not None:
        draw = _Sections(width, boxed)
        parts += [draw.in_rows(_sections(shown, bars=boxed)), draw.one("Models", _models(shown.models, width))]
    return Group(*parts, *([Text(hint, style="dim")] if hint else ()))


def _head(url: str, shown: Report | None, clock: str) -> Table:
    """Who it is at the left, when that was at the right."""
    left = Text(output.plain(f"Inferno {shown.version}  {url}  " if shown else f"{url}  "), style="bold")
    if shown is not None:
        left.append("draining" if shown.draining else "serving", style="yellow" if shown.draining else "green")
        left.append(f"  up {duration(shown.uptime_seconds)}", style="none")
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(overflow="fold")
    grid.add_column(justify="right", no_wrap=True, style="dim")
    grid.add_row(left, clock)
    return grid


# ---- sections ----


class _Sections:
    """Titles around what belongs together, in as many columns as there is room for."""

    def __init__(self, width: int, boxed: bool) -> None:
        self._boxed = boxed
        self._in_a_row = 4 if width >= _FOUR else 2 if width >= _TWO else 1

    def one(self, title: str, content: RenderableType, lines: int | None = None) -> RenderableType:
        if self._boxed:
            height = None if lines is None or self._in_a_row == 1 else lines + 2
            return Panel(content, title=f"[bold]{title}[/]", title_align="left", border_style="dim", height=height)
        return Group("", Text(title, style="bold"), Padding(content, (0, 0, 0, 2)))

    def in_rows(self, sections: Iterable[tuple[str, RenderableType]]) -> Table:
        drawn = [self.one(title, content, _LINES) for title, content in sections]
        grid = Table.grid(expand=True)
        for ratio in _RATIOS if self._in_a_row == len(_RATIOS) else [1] * self._in_a_row:
            grid.add_column(ratio=ratio)
        for start in range(0, len(drawn), self._in_a_row):
            grid.add_row(*drawn[start : start + self._in_a_row])
        return grid


def _sections(shown: Report, bars: bool) -> list[tuple[str, RenderableType]]:
    return [
        ("Throughput", _throughput(shown.throughput) if shown.throughput else _MEASURING),
        ("Latency", _latencies(shown.latency_ms, shown.interval_seconds) if shown.latency_ms else _MEASURING),
        ("Queue", _engines(shown.engines, bars)),
        ("Batches", _batches(shown.batches)),
    ]


def _throughput(rates: Throughput) -> Table:
    items = rates.batch_items_per_s
    return _lines(
        ("generated", _number(rates.generated_tokens_per_s), "tokens/s"),
        ("prompts", _number(rates.prompt_tokens_per_s), "tokens/s"),
        ("requests", _number(rates.requests_per_s), "/s"),
        ("of batches", "-" if items is None else _number(items), "/s"),
        ("failures", _styled(_number(rates.failures_per_s), "bold red" if rates.failures_per_s else ""), "/s"),
    )


def _latencies(found: Latencies, seconds: float | None) -> RenderableType:
    table = _grid("left", "right", "right", "right")
    table.add_row("", *(Text(name, style="dim") for name in ("p50", "p90", "p99")))
    rows = {"first token": found.time_to_first_token, "next token": found.inter_token, "request": found.request}
    for name, values in rows.items():
        table.add_row(name, *_percentiles(values))
    ended = f"{found.request.count:,} succeeded in {seconds or 0:.1f} s"
    return Group(table, Text(ended, style="dim"))


def _percentiles(values: Latency) -> Iterable[RenderableType]:
    if not values.count:
        return (Text("no data", style="dim"), "", "")
    return (milliseconds(value) for value in (values.p50, values.p90, values.p99))


def _engines(engines: Engine, bars: bool) -> Table:
    running, tokens = (engines.running, engines.slots), (engines.kv_tokens_used, engines.kv_tokens_total)
    waiting = _styled(f"{engines.waiting:,}", "yellow" if engines.waiting else "")
    slots_in_use = ("running", f"{running[0]:,}", f"of {running[1]:,} slots")
    tokens_in_use = ("KV tokens", f"{tokens[0]:,}", f"of {tokens[1]:,}")
    if not bars:
        return _lines(slots_in_use, ("waiting", waiting, ""), tokens_in_use)
    return _lines(
        slots_in_use, ("", _bar(*running), ""), ("waiting", waiting, ""), tokens_in_use, ("", _bar(*tokens), "")
    )


def _batches(found: Batches | None) -> RenderableType:
    if found is None:
        return Text("not known: the server does not tell", style="dim")
    batches, items = found.batches, found.items
    table = _grid("left", "right", "right")
    table.add_row("", Text("batches", style="dim"), Text("requests", style="dim"))
    table.add_row("queued", "", f"{items.get('queued', 0):,}")
    table.add_row("running", f"{batches.get('processing', 0):,}", f"{items.get('running', 0):,}")
    table.add_row("done", f"{batches.get('completed', 0):,}", f"{items.get('completed', 0):,}")
    failed = batches.get("failed", 0), items.get("failed", 0)
    table.add_row("failed", *(_styled(f"{count:,}", "red" if count else "") for count in failed))
    return table


def _models(models: list[Model], width: int) -> RenderableType:
    """Those in memory, or on their way there; the others are only counted."""
    shown = [model for model in models if model.state != "unloaded"]
    others = len(models) - len(shown)
    rest = Text(f"{others:,} {'more ' if shown else ''}not in memory", style="dim")
    drawn = [_in_lines(model) for model in shown] if width < _TWO else [_table(shown, width >= _DETAILED)]
    return Group(*(drawn if shown else ()), *([rest] if others or not shown else ()))


def _in_lines(model: Model) -> RenderableType:
    """Where a table has no room."""
    name = Text.assemble(output.plain(model.id), "  ", _state(model))
    cells = [Text.assemble(cell, f" {column}") for column, cell in zip(_COLUMNS, _cells(model), strict=True)]
    return Group(name, Padding(Text(", ").join(cells), (0, 0, 0, 2)))


def _table(models: list[Model], detailed: bool) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("model", overflow="fold", ratio=1)
    table.add_column("state")
    for name in (*_COLUMNS, *(_DETAILS if detailed else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for model in models:
        cells = [*_cells(model), *(_details(model) if detailed else ())]
        table.add_row(Text(output.plain(model.id)), _state(model), *cells)
    return table


_COLUMNS = ("tokens/s", "active", "memory", "context", "restarts")
_DETAILS = ("running", "waiting", "KV cache")


def _cells(model: Model) -> list[str | Text]:
    speed = model.generated_tokens_per_s
    return [
        "-" if speed is None else _number(speed),
        f"{model.active:,}",
        "-" if model.engine is None else output.human_bytes(model.engine.memory_bytes),
        f"{model.context_size:,}" if model.context_size else "-",
        _styled(f"{model.restarts:,}", "yellow" if model.restarts else ""),
    ]


def _details(model: Model) -> list[str]:
    engine = model.engine
    if engine is None:
        return ["-", "-", "-"]
    used = engine.kv_tokens_used / max(engine.kv_tokens_total, 1)
    return [f"{engine.running:,} of {engine.slots:,}", f"{engine.waiting:,}", f"{used:.0%}"]


def _state(model: Model) -> Text:
    text = f"{model.state} {model.progress:.0%}" if model.state == "loading" else model.state
    return Text(output.plain(text), style=_STYLES.get(model.state, ""))


# ---- small pieces ----


def _grid(*justify: str) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for side in justify:
        grid.add_column(justify=side, no_wrap=True)  # type: ignore[arg-type]
    return grid


def _lines(*lines: tuple[str, RenderableType, str]) -> Table:
    """Name, value and unit."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True, min_width=_BAR)
    grid.add_column(no_wrap=True, style="dim")
    for line in lines:
        grid.add_row(*line)
    return grid


def _bar(part: float, whole: float) -> ProgressBar:
    return ProgressBar(total=max(whole, 1), completed=part, width=_BAR)


def _styled(text: str, style: str) -> Text:
    return Text(text, style=style)


def _number(value: float) -> str:
    return f"{value:,.1f}"


def milliseconds(value: float | None) -> str:
    """With three digits or so."""
    if value is None:
        return "-"
    if value < 1000:
        return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
    return f"{value / 1000:.1f} s" if value < 100_000 else f"{value / 1000:,.0f} s"


def duration(seconds: float) -> str:
    """In the two largest units that it has."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{int(seconds)} s"
