from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from inferno.upgrade.installation import inspect


def test_this_very_environment() -> None:
    here = inspect(Path(sys.executable), "inferno-server")
    assert here.prefix == Path(sys.prefix)
    assert here.packages["inferno-server"] == here.version
    assert {"pip", "prometheus-client"} <= here.packages.keys()


def test_outside_of_a_virtual_environment_nothing_is_ours(tmp_path: Path) -> None:
    here = msgspec.structs.replace(inspect(Path(sys.executable), "inferno-server"), direct_url=None, has_pip=True)
    assert msgspec.structs.replace(here, is_virtual=True).refusal is None
    assert "not in a virtual environment" in (msgspec.structs.replace(here, is_virtual=False).refusal or "")


def test_environments_that_share_a_data_directory_have_a_state_each(tmp_path: Path) -> None:
    here = inspect(Path(sys.executable), "inferno-server")
    there = msgspec.structs.replace(here, prefix=tmp_path)
    assert here.state_dir(tmp_path) != there.state_dir(tmp_path)
    assert here.state_dir(tmp_path).is_relative_to(tmp_path / "upgrade")
