"""A run's results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.measurement import Metrics, percentile, ratios
from benchmarks.results import Results
from benchmarks.targets import Verdict, judge

REFERENCE = "llama-server"
_UNITS = {"_tok_s": "tok/s", "_ms": "ms", "_mib": "MiB"}
#: What only some workloads measure, and how it is said.
_EXTRAS = {
    "load_to_first_token_ms": "first token {:,.0f} ms after the start",
    "pss_mib": "PSS {:,.0f} MiB",
    "valid_share": "{:.0%} valid",
    "decode_tok_s": "generation alone {:,.1f} tok/s",
}


def full(results: Results) -> str:
    """Everything."""
    parts = [
        conditions(results),
        _limits(results),
        targets(results),
        *(_workload(results, *c) for c in _shown(results)),
    ]
    return "\n\n".join(part for part in parts if part)


def short(results: Results) -> str:
    """The targets, and on what they were measured."""
    return f"{conditions(results)}\n\n{targets(results)}"


def conditions(results: Results) -> str:
    machine = results.machine
    size = "A quick look, with smaller sizes: not to be compared with targets. " if results.quick else ""
    text = (
        f"{size}Measured on {results.made}, commit {machine['commit'] or 'unknown'}: {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['threads']} threads; llama.cpp as in "
        f"{machine['llama_cpp']}; {results.rounds} alternating round{'s' if results.rounds > 1 else ''}, medians, "
        "ratios are medians of the rounds' own."
    )
    return f"{text} {_disturbance(results)}".strip() + _absent(results)


def _disturbance(results: Results) -> str:
    """How much of the machine others had meanwhile: whether the numbers are worth much."""
    others, stolen, client = (
        [run.metrics[name] for run in results.runs if name in run.metrics]
        for name in ("others_share", "steal_share", "client_share")
    )
    if not others:
        return ""
    return (
        f"Of the processors, other programs used {percentile(others, 50):.1%} meanwhile (median of the rounds; at most "
        f"{max(others):.1%}), the hypervisor took {percentile(stolen, 50):.1%} (at most {max(stolen):.1%}), and the "
        f"measuring client used {percentile(client, 50):.1%}."
    )


def _absent(results: Results) -> str:
    return "".join(f"\n\nWithout {name}: {reason}" for name, reason in results.absent.items())


def _limits(results: Results) -> str:
    limits = results.limits
    if not limits:
        return ""
    rows = [["read from memory, GB/s", *_by_threads(limits["read_gb_s"])]]
    if "int8_top_s" in limits:
        name = f"int8 multiply-adds ({limits['int8_instructions']}), 10^12 operations/s"
        rows.append([name, *_by_threads(limits["int8_top_s"])])
    threads = [f"{count} thread{'s' if count != '1' else ''}" for count in limits["read_gb_s"]]
    return "What the machine can do at most:\n\n" + table(["", *threads], rows) + _use(results)


def _by_threads(values: dict[str, float]) -> list[str]:
    return [f"{value:.2f}" for value in values.values()]


def _use(results: Results) -> str:
    """How much of it the best peer turns into tokens: weights read by a lone client, multiply-adds of a prompt."""
    lines = []
    for file, model in results.files.items():
        bandwidth = list(results.limits["read_gb_s"].values())[-1] * 1e9
        if decode := _best(results, "clients-1", file, "output_tok_s"):
            share = decode[0] * model.bytes / bandwidth
            lines.append(f"{model.title}, 1 client: {share:.0%} of the read bandwidth at the best ({decode[1]})")
        prefill = _best(results, "prefill-512", file, "input_tok_s")
        if prefill and "int8_top_s" in results.limits:
            peak = list(results.limits["int8_top_s"].values())[-1] * 1e12
            share = prefill[0] * 2 * model.parameters / peak
            lines.append(f"{model.title}, prefill: {share:.0%} of the int8 peak at the best ({prefill[1]})")
    return "".join(["\n", *(f"\n- {line}" for line in lines)]) if lines else ""


def _best(results: Results, workload: str, file: str, metric: str) -> tuple[float, str] | None:
    found = [(results.medians(workload, file, peer).get(metric, 0.0), title) for peer, title in results.peers.items()]
    best = max(found, default=(0.0, ""))
    return best if best[0] else None


# ---- targets ---------------------------------------------------------------------------------------------------------


def targets(results: Results) -> str:
    verdicts = judge(results)
    if not verdicts:
        return ""
    header = ["workload", "file", "ours", "peer", "ratio (range of rounds)", "target", "met"]
    return table(header, [_target_row(results, verdict) for verdict in verdicts])


def _target_row(results: Results, verdict: Verdict) -> list[str]:
    target = verdict.target
    name = results.workloads.get(target.ours.workload, target.ours.workload)
    theirs = _amount(verdict.theirs, target.metric) or results.why_not(
        target.theirs.workload, target.file, target.theirs.peer
    )
    ours = _amount(verdict.ours, target.metric) or results.why_not(target.ours.workload, target.file, target.ours.peer)
    if target.ours.peer != "inferno":
        ours += " in process"
    return [
        f"{name}: {_metric_name(target.metric)}",
        results.files[target.file].title,
        ours,
        f"{theirs}, {_peer(results, verdict)}",
        _ratio(verdict),
        f"{'≤' if target.at_most else '≥'} {target.bound:g}",
        {True: "yes", False: "no", None: "-"}[verdict.met],
    ]


def _peer(results: Results, verdict: Verdict) -> str:
    theirs = verdict.target.theirs
    if theirs.peer == verdict.target.ours.peer:
        return results.workloads.get(theirs.workload, theirs.workload)
    return results.peers.get(theirs.peer, theirs.peer)


def _ratio(verdict: Verdict) -> str:
    if verdict.ratio is None or verdict.spread is None:
        return "-"
    low, high = verdict.spread
    return f"{verdict.ratio:.2f}" + (f" ({low:.2f} to {high:.2f})" if low < high else "")


def _metric_name(metric: str) -> str:
    names = {"output_tok_s": "output", "input_tok_s": "input", "peak_rss_mib": "peak memory"}
    return names.get(metric) or metric.removesuffix("_ms").replace("_", " ").replace("ttft", "TTFT").replace(
        "itl", "ITL"
    )


def _amount(value: float | None, metric: str) -> str:
    unit = next(unit for suffix, unit in _UNITS.items() if metric.endswith(suffix))
    return "" if value is None else f"{number(value)} {unit}"


# ---- workloads -------------------------------------------------------------------------------------------------------


def _shown(results: Results) -> Iterable[tuple[str, list[str]]]:
    """Each workload with the files it ran on, in the order of the titles."""
    cells = results.cells()
    for workload in results.workloads:
        if files := [file for name, file in cells if name == workload]:
            yield workload, files


def _workload(results: Results, workload: str, files: list[str]) -> str:
    header = ["file", "peer", "output tok/s", "input tok/s", "TTFT p50 / p99 ms", "ITL p50 / p99 / max ms"]
    header += ["E2E p50 ms", "CPU ms/token", "peak MiB", f"x {results.peers.get(REFERENCE, REFERENCE)}", ""]
    rows = [
        _row(results, workload, file, peer)
        for file in files
        for peer in results.peers
        if _ran(results, workload, file, peer)
    ]
    return f"**{results.workloads[workload]}** (`{workload}`)\n\n{table(header, rows)}"


def _ran(results: Results, workload: str, file: str, peer: str) -> bool:
    return bool(results.of(workload, file, peer))


def _row(results: Results, workload: str, file: str, peer: str) -> list[str]:
    metrics = results.medians(workload, file, peer)
    head = [results.files[file].title, results.peers[peer]]
    if not metrics:
        return [*head, results.why_not(workload, file, peer), *[""] * 8]
    return [
        *head,
        _joined(metrics, "output_tok_s"),
        _joined(metrics, "input_tok_s"),
        _joined(metrics, "ttft_p50_ms", "ttft_p99_ms"),
        _joined(metrics, "itl_p50_ms", "itl_p99_ms", "itl_max_ms"),
        _joined(metrics, "e2e_p50_ms"),
        _joined(metrics, "cpu_ms_per_token"),
        _joined(metrics, "peak_rss_mib"),
        _to_reference(results, workload, file, peer),
        "; ".join(text.format(metrics[name]) for name, text in _EXTRAS.items() if name in metrics),
    ]


def _to_reference(results: Results, workload: str, file: str, peer: str) -> str:
    metric = results.headlines[workload]
    by_round = ratios(results.values(workload, file, peer, metric), results.values(workload, file, REFERENCE, metric))
    return f"{percentile(by_round, 50):.2f}" if by_round else ""


def _joined(metrics: Metrics, *names: str) -> str:
    return " / ".join(number(metrics[name]) for name in names) if all(name in metrics for name in names) else ""


# ---- text ------------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
