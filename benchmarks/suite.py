"""The benchmark suite: Inferno and its peers side by side, in one run, in alternating rounds.

make bench                                   # everything
make bench QUICK=1                           # a look: about two minutes
make bench BENCH_ARGS="--only clients-16,shared-prefix --files q4_0 --rounds 5"
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import sys
from collections.abc import Collection
from pathlib import Path

from benchmarks import machine
from benchmarks.exchange import Failed
from benchmarks.model_files import TITLES, model_file
from benchmarks.peers import PEERS, QUICK_PEERS
from benchmarks.peers.base import ROOT, Options
from benchmarks.plan import Group, groups
from benchmarks.prompts import Vocabulary
from benchmarks.publish import publish, write
from benchmarks.results import ModelFile, Results
from benchmarks.runner import Runner
from benchmarks.workloads import workloads
from benchmarks.workloads.base import Workload

OWN = "own"  # the file that --model names
STEM = "suite.local"  # which git ignores
RESULTS = ROOT / "benchmarks" / "results"


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = run(arguments)
    print(write(results, arguments.output, STEM))
    if arguments.publish:
        publish(results, ROOT)
    return 1 if any(run.error for run in results.runs) else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one round, the default file")
    parser.add_argument("--only", type=_names, help="workloads, with commas")
    parser.add_argument("--files", type=_names, help=f"of {', '.join(TITLES)}; MiniLM is used for embeddings alone")
    parser.add_argument("--peers", type=_names, help=f"of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="compute threads of each peer")
    parser.add_argument("--llama-args", default="", help='more for the tuned llama-server, such as "-b 512"')
    parser.add_argument("--model", type=Path, help="a GGUF file of your own, without embeddings")
    parser.add_argument("--programs", type=Path, default=ROOT / "build/peers/bin", help="where `make peers` built")
    parser.add_argument("--output", type=Path, default=RESULTS, help="directory for the report")
    parser.add_argument("--publish", action="store_true", help="also into the files that are committed")
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return arguments


def _names(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Completes what was left out, and refuses what is not known."""
    quick = arguments.quick
    table = {workload.name: workload for workload in workloads(quick)}
    arguments.only = arguments.only or list(table)
    arguments.peers = arguments.peers or list(QUICK_PEERS if quick else PEERS)
    arguments.files = arguments.files or (["q4_1", "minilm"] if quick else list(TITLES))
    arguments.rounds = arguments.rounds or (1 if quick else 3)
    known: dict[str, Collection[str]] = {"only": table, "peers": PEERS, "files": TITLES}
    for option, names in known.items():
        if unknown := [name for name in getattr(arguments, option) if name not in names]:
            parser.error(f"--{option}: {', '.join(unknown)} is not one of {', '.join(names)}")
    if arguments.publish and (quick or arguments.model):
        parser.error("--publish is for full runs on the usual files")
    arguments.peers = [name for name in PEERS if name in arguments.peers]  # in the order in which they are shown
    arguments.workloads = [table[name] for name in table if name in arguments.only]
    if arguments.model:
        _take_own_file(parser, arguments)


def _take_own_file(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if not arguments.model.exists():
        parser.error(f"--model: {arguments.model} does not exist")
    arguments.files = [OWN]
    generating = [workload for workload in arguments.workloads if not workload.setting.embeddings]
    arguments.workloads = [dataclasses.replace(workload, files=(OWN,)) for workload in generating]


def run(arguments: argparse.Namespace) -> Results:
    """The file of results grows with each group, so that a run that is broken off was not for nothing."""
    options = Options(arguments.threads, arguments.programs, tuple(arguments.llama_args.split()))
    peers, absent = _at_hand(arguments.peers, options)
    wanted = groups(arguments.workloads, arguments.files)
    models = _models(wanted, arguments.model, options, absent)
    results = _empty_results(arguments, peers, absent, options)
    results.files = {file: _described(file, model) for file, model in models.items()}
    vocabularies = {file: Vocabulary.of(model) for file, model in models.items()}
    runner = Runner(peers, arguments.rounds, options, _say)
    for group in wanted:
        if group.file in models:
            runner.run(group, models[group.file], vocabularies[group.file])
            results.runs = runner.runs
            results.save(arguments.output / f"{STEM}.json")
    return results


def _models(wanted: list[Group], own: Path | None, options: Options, absent: dict[str, str]) -> dict[str, Path]:
    """The files that the groups need; those that cannot be had are added to what is absent."""
    found = {}
    for file in dict.fromkeys(group.file for group in wanted):
        try:
            found[file] = own or model_file(file, options)
        except Failed as error:
            absent[file] = str(error)
            _say(f"without {file}: {error}")
    return found


def _at_hand(names: list[str], options: Options) -> tuple[list[str], dict[str, str]]:
    """The peers that can be started, and why the others cannot."""
    absent = {}
    for name in names:
        try:
            PEERS[name].prepare(options)
        except Failed as error:
            absent[name] = str(error)
            _say(f"without {name}: {error}")
    return [name for name in names if name not in absent], absent


def _empty_results(
    arguments: argparse.Namespace, peers: list[str], absent: dict[str, str], options: Options
) -> Results:
    workloads: list[Workload] = arguments.workloads
    return Results(
        made=datetime.date.today().isoformat(),
        quick=arguments.quick,
        rounds=arguments.rounds,
        machine=machine.description(options),
        limits=_limits(options),
        files={},
        workloads={workload.name: workload.title for workload in workloads},
        headlines={workload.name: workload.headline for workload in workloads},
        peers={name: PEERS[name].title for name in peers},
        absent=absent,
    )


def _limits(options: Options) -> dict[str, object]:
    try:
        return machine.limits(options)
    except Failed as error:
        _say(f"without the machine's limits: {error}")
        return {}


def _described(name: str, path: Path) -> ModelFile:
    from inferno import _core

    info = _core.inspect_model(str(path))
    matrices = info["n_params"] - info["n_vocab"] * info["n_embd"]
    return ModelFile(title=TITLES.get(name, path.stem), bytes=path.stat().st_size, parameters=matrices)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
