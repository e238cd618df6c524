"""Writing reports: beside the suite for a look, and into the files that are committed.

`python -m benchmarks.publish benchmarks/results/suite.local.json` publishes a run that has already been made.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import plots, report
from benchmarks.results import Results

PLOTS = {"throughput": plots.throughput, "ratios": plots.ratios}
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def write(results: Results, directory: Path, stem: str) -> str:
    """JSON, Markdown and plots; returns the Markdown. Makes the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    results.save(directory / f"{stem}.json")
    text = report.full(results)
    (directory / f"{stem}.md").write_text(text + "\n")
    for name, plot in PLOTS.items():
        plot(results, directory / f"{stem}.{name}.svg")
    return text


def publish(results: Results, root: Path) -> None:
    """Replace what README and the page on performance say between the markers."""
    directory = root / "benchmarks" / "results"
    write(results, directory, "suite")
    drawn = [name for name in PLOTS if (directory / f"suite.{name}.svg").exists()]
    images = [f"![{name}](../benchmarks/results/suite.{name}.svg)" for name in drawn]
    replace_between_markers(root / "README.md", report.short(results))
    replace_between_markers(root / "docs" / "performance.md", "\n\n".join([report.full(results), *images]))


def replace_between_markers(path: Path, text: str) -> None:
    """Raises ValueError when the file has not one pair of markers."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"{path.name} must have {BEGIN} and {END}, once each")
    path.write_text(f"{before}{BEGIN}\n{text.strip()}\n{END}{after}")


if __name__ == "__main__":
    publish(Results.load(Path(sys.argv[1])), Path(__file__).resolve().parent.parent)
