"""Memory that control groups leave a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferno.engine.control_group import memory_limit

LIMITS = {"": "max", "system.slice": "3000", "system.slice/a.service": "1000", "system.slice/b.service": "max"}


@pytest.mark.parametrize(
    ("own", "limit"),
    [
        ("0::/system.slice/a.service\n", 1000),
        ("1:memory:/old\n0::/system.slice/b.service\n", 3000),
        ("0::/elsewhere/deep\n", None),
        ("0::/\n", None),
        ("4:memory:/\n", None),
    ],
)
def test_the_smallest_limit_around_a_process_counts(tmp_path: Path, own: str, limit: int | None) -> None:
    for group, text in LIMITS.items():
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / "memory.max").write_text(f"{text}\n")
    (tmp_path / "own").write_text(own)
    assert memory_limit(tmp_path, tmp_path / "own") == limit


def test_in_a_container_the_root_is_the_own_group(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "own").write_text("0::/\n")
    assert memory_limit(tmp_path, tmp_path / "own") == 5000


def test_without_groups_nothing_is_said(tmp_path: Path) -> None:
    assert memory_limit(tmp_path, tmp_path / "own") is None
