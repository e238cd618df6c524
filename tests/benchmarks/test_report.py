"""Verdicts and Markdown of a run that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import plots, report
from benchmarks.publish import publish, replace_between_markers
from benchmarks.results import ModelFile, Results, Run, rounded
from benchmarks.targets import Side, Target, judge

MACHINE = {
    "processor": "A processor",
    "cores": 2,
    "threads": 2,
    "memory_gib": 23.5,
    "commit": "abc1234",
    "llama_cpp": "llama-cpp-python==0",
}
QUIET = {"others_share": 0.01, "steal_share": 0.002, "client_share": 0.05}


def speeds(peer: str, *values: float, workload: str = "clients-16", **more: float) -> list[Run]:
    return [
        Run(workload, "q4_1", peer, number, {"output_tok_s": value, **QUIET, **more})
        for number, value in enumerate(values)
    ]


def results(*runs: Run) -> Results:
    return Results(
        made="2020-02-29",
        quick=False,
        rounds=3,
        machine=MACHINE,
        limits={
            "read_gb_s": {"1": 10.0, "2": 20.0},
            "int8_top_s": {"1": 1.0, "2": 2.0},
            "int8_instructions": "AVX-512 VNNI",
        },
        files={"q4_1": ModelFile(title="Q4_1", bytes=100_000_000, parameters=100_000_000)},
        workloads={"clients-1": "One", "clients-16": "Sixteen", "json-schema": "JSON", "json-free": "Free"},
        headlines=dict.fromkeys(["clients-1", "clients-16", "json-schema", "json-free"], "output_tok_s"),
        peers={"inferno": "Inferno", "llama-server": "llama-server, tuned"},
        absent={"openvino": "no network"},
        runs=list(runs),
    )


def lines_with(text: str, words: str) -> list[str]:
    return [line for line in text.splitlines() if words in line]


TARGET = Target("q4_1", "output_tok_s", Side("clients-16", "inferno"), Side("clients-16", "llama-server"), 2.5)


@pytest.mark.parametrize(("ours", "met"), [((250, 300, 260), True), ((240, 300, 200), False)])
def test_a_target_is_judged_by_the_median_of_the_rounds_ratios(ours: tuple[int, ...], met: bool) -> None:
    runs = [*speeds("inferno", *ours), *speeds("llama-server", 100, 100, 100)]
    (verdict,) = judge(results(*runs), [TARGET])
    assert verdict.met is met
    assert verdict.ratio == sorted(ours)[1] / 100
    assert verdict.spread == (min(ours) / 100, max(ours) / 100)


def test_a_target_that_less_is_better_for() -> None:
    target = Target("q4_1", "ttft_p50_ms", TARGET.ours, TARGET.theirs, 0.25, at_most=True)
    runs = [*speeds("inferno", 1, ttft_p50_ms=20.0), *speeds("llama-server", 1, ttft_p50_ms=100.0)]
    (verdict,) = judge(results(*runs), [target])
    assert verdict.met is True


def test_the_table_of_targets() -> None:
    runs = [*speeds("inferno", 251.5, 251.5), *speeds("llama-server", 99.9, 99.9)]
    spread = [*speeds("inferno", 200, 300, 250), *speeds("llama-server", 100, 100, 100)]
    assert "| 2.50 (2.00 to 3.00) |" in report.short(results(*spread))
    row = "| Sixteen: output | Q4_1 | 252 tok/s | 99.9 tok/s, llama-server, tuned | 2.52 | ≥ 2.5 | yes |"
    assert row in report.short(results(*runs))


def test_what_a_peer_refuses_is_said() -> None:
    refused = Run("json-schema", "q4_1", "inferno", 0, refusal="400: response_format")
    text = report.full(results(refused, *speeds("inferno", 80, workload="json-free")))
    (row,) = lines_with(text, "JSON: output")
    assert row == "| JSON: output | Q4_1 | not supported | 80 tok/s, Free | - | ≥ 0.9 | - |"
    assert lines_with(text, "| Q4_1 | Inferno | not supported |")


def test_what_failed_is_said() -> None:
    failed = Run("clients-16", "q4_1", "llama-server", 0, error="it ended")
    text = report.full(results(*speeds("inferno", 10), failed))
    assert lines_with(text, "| Q4_1 | llama-server, tuned | failed |")


def test_rows_of_a_workload() -> None:
    latencies = {"ttft_p50_ms": 12.34, "ttft_p99_ms": 1234.5, "itl_p50_ms": 5.0, "itl_p99_ms": 6.0, "itl_max_ms": 7.0}
    text = report.full(results(*speeds("inferno", 120, 90, 150, **latencies), *speeds("llama-server", 100, 100, 100)))
    (row,) = lines_with(text, "| Q4_1 | Inferno |")
    assert row == "| Q4_1 | Inferno | 120 |  | 12.3 / 1,234 | 5 / 6 / 7 |  |  |  | 1.20 |  |"


def test_says_how_much_of_the_machine_was_used_and_by_whom() -> None:
    text = report.full(results(*speeds("inferno", 100, workload="clients-1")))
    assert "other programs used 1.0% meanwhile" in text
    assert "client used 5.0%" in text
    assert "the hypervisor took 0.2%" in text
    assert "Q4_1, 1 client: 50% of the read bandwidth at the best (Inferno)" in text
    assert "Without openvino: no network" in text


def test_a_quick_run_says_that_it_is_one() -> None:
    quick = results(*speeds("inferno", 1))
    quick.quick = True
    assert "not to be compared" in report.short(quick)
    assert "not to be compared" not in report.short(results(*speeds("inferno", 1)))


def test_results_are_the_same_after_a_file(tmp_path: Path) -> None:
    made = results(*speeds("inferno", 10.5), Run("clients-1", "q4_1", "llama-server", 0, error="broken"))
    made.save(tmp_path / "suite.json")
    assert Results.load(tmp_path / "suite.json") == made


def test_metrics_are_kept_to_four_digits() -> None:
    assert rounded({"a": 1234.5678, "b": 0.000123456}) == {"a": 1235, "b": 0.0001235}


def test_plots(tmp_path: Path) -> None:
    runs = [run for peer in ("inferno", "llama-server") for run in speeds(peer, 10, workload="clients-1")]
    made = results(*runs, *speeds("inferno", 90), *speeds("llama-server", 60))
    for plot in (plots.throughput, plots.ratios):
        plot(made, tmp_path / "first.svg")
        plot(made, tmp_path / "second.svg")
        assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert ">1.50</text>" in (tmp_path / "first.svg").read_text()
    plots.throughput(made, tmp_path / "first.svg")
    assert ">llama-server, tuned</text>" in (tmp_path / "first.svg").read_text()


def test_nothing_is_plotted_of_nothing(tmp_path: Path) -> None:
    plots.throughput(results(), tmp_path / "none.svg")
    plots.ratios(results(*speeds("inferno", 10)), tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_only_what_is_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n")
    replace_between_markers(page, "new\n")
    replace_between_markers(page, "newer")
    assert page.read_text() == "before\n<!-- bench:begin -->\nnewer\n<!-- bench:end -->\nafter\n"


def test_publishing_writes_the_pages_and_the_files_they_show(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    pages = [tmp_path / "README.md", tmp_path / "docs" / "performance.md"]
    for page in pages:
        page.write_text("<!-- bench:begin -->\n<!-- bench:end -->\n")
    publish(results(*speeds("inferno", 120), *speeds("llama-server", 100)), tmp_path)
    readme, docs = (page.read_text() for page in pages)
    assert "| Sixteen: output |" in readme
    assert "![ratios](../benchmarks/results/suite.ratios.svg)" in docs
    written = {path.name for path in (tmp_path / "benchmarks" / "results").iterdir()}
    assert written == {"suite.json", "suite.md", "suite.ratios.svg", "suite.throughput.svg"}


@pytest.mark.parametrize("text", ["none", "<!-- bench:end --> <!-- bench:begin -->", "<!-- bench:begin --> only"])
def test_a_page_without_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page\.md must have"):
        replace_between_markers(page, "new")
    assert page.read_text() == text


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md"])
def test_the_project_s_pages_have_the_markers(tmp_path: Path, page: str) -> None:
    copy = tmp_path / "page.md"
    copy.write_text((Path(__file__).parents[2] / page).read_text())
    replace_between_markers(copy, report.short(results(*speeds("inferno", 10))))
    assert "Sixteen: output" in copy.read_text()
