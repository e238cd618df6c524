from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from inferno.config import Settings, load_settings
from inferno.upgrade.check import Check, Notice
from inferno.upgrade.installation import inspect

from tests import package_index
from tests.package_index import PACKAGE, PackageIndex, environment, put, sample


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with package_index.serving() as serving:
        yield serving


@pytest.fixture
def python(tmp_path: Path, index: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> Path:
    clean = package_index.environ()
    for name in os.environ.keys() - clean.keys():
        monkeypatch.delenv(name)
    for name, value in clean.items():
        monkeypatch.setenv(name, value)
    index.files = sample("1.0")
    python = environment(tmp_path / "environment")
    put(python, index, PACKAGE)
    index.requests.clear()
    index.files |= sample("1.1")
    return python


def _settings(tmp_path: Path, address: str, *, check: bool = True) -> Settings:
    flags = {"upgrade.package": PACKAGE, "upgrade.index": address, "upgrade.check": check, "data_dir": str(tmp_path)}
    return load_settings(None, flags, {"XDG_CONFIG_HOME": str(tmp_path)})


def _told(settings: Settings, python: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO), Notice(settings, python) as notice:
        notice.begin()
        notice.wait()
    return caplog.messages


def _last_check(settings: Settings, python: Path) -> Path:
    return inspect(python, PACKAGE).state_dir(settings.data_dir) / "last-check.json"


def test_a_line_each_start_and_a_request_each_day(
    tmp_path: Path, index: PackageIndex, python: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = _settings(tmp_path, index.url)
    line = "inferno-sample 1.1 is available, 1.0 is installed; `inferno upgrade install` installs it"
    assert _told(settings, python, caplog) == [line]
    asked = len(index.requests)
    assert asked > 0
    assert _told(settings, python, caplog) == [line]
    assert len(index.requests) == asked

    file = _last_check(settings, python)
    kept = msgspec.json.decode(file.read_bytes(), type=Check)
    yesterday = (datetime.now(UTC) - timedelta(hours=25)).strftime("%Y-%m-%dT%H:%M:%SZ")
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(kept, time=yesterday)))
    _told(settings, python, caplog)
    assert len(index.requests) > asked


@pytest.mark.parametrize("content", [b"", b"{", b'{"time": "x", "source": 1}'])
def test_a_last_check_that_cannot_be_read_is_none(
    tmp_path: Path, index: PackageIndex, python: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    settings = _settings(tmp_path, index.url)
    file = _last_check(settings, python)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert len(_told(settings, python, caplog)) == 1


def test_it_is_off_unless_asked_for(
    tmp_path: Path, index: PackageIndex, python: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_settings(None, None, {"XDG_CONFIG_HOME": str(tmp_path)}).upgrade.check is False
    assert _told(_settings(tmp_path, index.url, check=False), python, caplog) == []
    assert index.requests == []


def test_an_index_out_of_reach_is_asked_once_a_day_too(
    tmp_path: Path, python: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = _settings(tmp_path, "http://127.0.0.1:1/simple")
    (line,) = _told(settings, python, caplog)
    assert line.startswith("No check for a newer version: ")
    assert _told(settings, python, caplog) == []


def test_bad_settings_do_not_reach_the_server(tmp_path: Path, python: Path, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = _told(_settings(tmp_path, "nonsense"), python, caplog)
    assert "upgrade.index" in line


def test_a_server_that_stops_does_not_wait(
    tmp_path: Path, index: PackageIndex, python: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.held = "/simple/"
    settings = _settings(tmp_path, index.url)
    with caplog.at_level(logging.INFO), Notice(settings, python) as notice:
        notice.begin()
        assert index.reached.wait(60)
    assert not index.release.is_set()  # the context was left while the index kept pip waiting
    assert not _last_check(settings, python).exists()  # pip did not give up by itself; the next start asks again
    assert caplog.messages == []
