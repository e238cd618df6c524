from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from inferno.upgrade.history import MOST_LINES, History, Record, now


def _record(version: str, outcome: str = "done", **more: Any) -> Record:
    fields = {"time": now(), "package": "p", "action": "install", "previous": "1", "version": version}
    return Record(outcome=outcome, **fields, **more)


def test_in_order_and_for_the_owner_only(tmp_path: Path) -> None:
    history = History(tmp_path / "state")
    assert history.read() == ([], 0)
    records = [_record(str(number), detail="a\nb", packages={"x": "1"}) for number in range(3)]
    for record in records:
        history.add(record)
    assert history.read() == (records, 0)
    assert stat.S_IMODE((tmp_path / "state" / "history.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_an_end_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    history = History(tmp_path)
    cut_off, begun, ended = _record("2", "started"), _record("3", "started"), _record("3", "rolled back")
    for record in (cut_off, begun, ended):
        history.add(record)
    assert history.read() == ([cut_off, ended], 0)


def test_a_line_that_was_cut_off_takes_no_other_with_it(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(_record("1"))
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-')
    history.add(_record("2"))
    records, unreadable = history.read()
    assert [record.version for record in records] == ["1", "2"]
    assert unreadable == 1


def test_it_does_not_grow_for_ever(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number in range(MOST_LINES + 5):
        history.add(_record(str(number)))
    records, _ = history.read()
    assert len(records) == MOST_LINES
    assert (records[0].version, records[-1].version) == ("5", str(MOST_LINES + 4))
    assert stat.S_IMODE((tmp_path / "history.jsonl").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]
