"""Two pictures of a run: speed by number of clients, and every workload against llama-server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.measurement import percentile
from benchmarks.measurement import ratios as by_round
from benchmarks.report import REFERENCE
from benchmarks.results import Results

# The same file for the same results, and text that stays text.
mpl.rcParams |= {
    "svg.hashsalt": "inferno",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_COLOURS = {
    "inferno": "#d1495b",
    "inferno-in-process": "#edae49",
    "llama-server": "#00798c",
    "llama-server-defaults": "#66a5ad",
    "llama-batched-bench": "#8d96a3",
    "openvino": "#5a3d7a",
}


def throughput(results: Results, path: Path) -> None:
    """Output tokens per second by clients, a panel for each file. Writes nothing without such runs."""
    files = [file for file in results.files if any(_points(results, file, peer) for peer in _COLOURS)]
    if not files:
        return
    figure = Figure(figsize=(4 * len(files) + 2.2, 3.4), layout="constrained")
    for axes, file in zip(figure.subplots(1, len(files), squeeze=False)[0], files, strict=True):
        _lines(axes, results, file)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _lines(axes: Any, results: Results, file: str) -> None:
    for peer, colour in _COLOURS.items():
        if points := _points(results, file, peer):
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", label=results.peers[peer])
    axes.set(title=results.files[file].title, xlabel="clients", ylabel="output tokens/s", xscale="log", ylim=(0, None))
    clients = sorted({x for peer in _COLOURS for x, _ in _points(results, file, peer)})
    axes.set_xticks(clients, [str(count) for count in clients])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.3)


def _points(results: Results, file: str, peer: str) -> list[tuple[int, float]]:
    found = []
    for workload in results.workloads:
        head, _, count = workload.rpartition("-")
        if head == "clients" and (value := results.medians(workload, file, peer).get("output_tok_s")):
            found.append((int(count), value))
    return sorted(found)


def ratios(results: Results, path: Path) -> None:
    """Ours to llama-server's, by the metric that each workload is compared by. Writes nothing without such runs."""
    bars = [
        (f"{name}, {results.files[file].title}", ratio)
        for name, file in results.cells()
        if (ratio := _ratio(results, name, file))
    ]
    if not bars:
        return
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(bars)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh([name for name, _ in bars], [ratio for _, ratio in bars], color=_COLOURS["inferno"])
    axes.bar_label(drawn, fmt="%.2f", padding=3)
    axes.axvline(1, color=_COLOURS[REFERENCE])
    axes.set(xlabel=f"throughput, Inferno / {results.peers[REFERENCE]}")
    axes.invert_yaxis()
    figure.savefig(path, metadata={"Date": None})


def _ratio(results: Results, workload: str, file: str) -> float | None:
    metric = results.headlines[workload]
    ours, theirs = (results.values(workload, file, peer, metric) for peer in ("inferno", REFERENCE))
    found = by_round(ours, theirs)
    return percentile(found, 50) if found else None
