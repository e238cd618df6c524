"""What runs together, and in which order."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.peers import PEERS, QUICK_PEERS
from benchmarks.plan import alternating, groups
from benchmarks.suite import parse
from benchmarks.targets import TARGETS
from benchmarks.workloads import workloads
from benchmarks.workloads.base import JobWorkload, Workload
from benchmarks.workloads.clients import UniquePrompts
from benchmarks.workloads.cold_start import ColdStart


def clients(name: str, clients: int, **more: object) -> UniquePrompts:
    workload = UniquePrompts(name=name, clients=clients, requests=1, prompt=8, new=4)
    return dataclasses.replace(workload, **more)


def test_workloads_that_need_the_same_peers_share_them() -> None:
    wanted: list[Workload] = [clients("a", 2, files=("q4_0", "q8_0")), clients("b", 3), clients("c", 2)]
    found = groups(wanted, ["q4_1", "q4_0"])
    shown = [(group.file, [workload.name for workload in group.workloads]) for group in found]
    assert shown == [("q4_0", ["a"]), ("q4_1", ["b"]), ("q4_1", ["c"])]
    together = groups([clients("a", 2), clients("b", 2)], ["q4_1"])
    assert [[workload.name for workload in group.workloads] for group in together] == [["a", "b"]]


def test_a_workload_that_starts_its_peers_anew_is_alone() -> None:
    fresh = ColdStart(name="fresh", clients=2, prompt=8, new=4)
    found = groups([clients("a", 2), fresh], ["q4_1"])
    assert [group.fresh for group in found] == [False, True]


def test_only_peers_that_a_workload_is_for_are_started() -> None:
    (group,) = groups([clients("a", 2, peers=("inferno", "openvino"))], ["q4_1"])
    assert group.peers(["inferno", "llama-server"]) == ["inferno"]


def test_rounds_alternate() -> None:
    assert [list(alternating(["a", "b"], number)) for number in range(2)] == [["a", "b"], ["b", "a"]]


@pytest.mark.parametrize("quick", [False, True])
def test_the_table_names_peers_that_exist_and_can_do_it(quick: bool) -> None:
    table = workloads(quick)
    servers = {"inferno", "llama-server", "llama-server-defaults"}
    for workload in table:
        assert set(workload.peers) <= set(PEERS)
        assert isinstance(workload, JobWorkload) or set(workload.peers) <= servers, workload.name
    assert len({workload.name for workload in table}) == len(table)


def test_each_target_is_measured_by_a_full_run() -> None:
    table = {workload.name: workload for workload in workloads(quick=False)}
    for target in TARGETS:
        for side in (target.ours, target.theirs):
            assert side.peer in table[side.workload].peers
            assert target.file in table[side.workload].files


def test_what_a_quick_run_is() -> None:
    arguments = parse(["--quick", "--only", "clients-1, n-8"])
    assert (arguments.rounds, arguments.files, arguments.peers) == (1, ["q4_1", "minilm"], list(QUICK_PEERS))
    assert [workload.name for workload in arguments.workloads] == ["clients-1", "n-8"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--only", "clients-7"], "--only: clients-7 is not one of clients-1"),
        (["--peers", "inferno,vllm"], "--peers: vllm is not one of"),
        (["--files", "q2_k"], "--files: q2_k is not one of"),
        (["--quick", "--publish"], "--publish is for full runs"),
    ],
)
def test_names_that_are_not_known_are_refused(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(argv)
    assert said in capsys.readouterr().err
