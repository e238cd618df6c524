"""deploy/systemd: what systemd says of the unit, what the unit says of us, and that a server lives under it."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import httpx
import pytest
from inferno.cli.main import cli

from tests.deploy.files import DEPLOY, PAGE, longest_stop_s, seconds, settings_of

UNIT = (DEPLOY / "systemd" / "inferno.service").read_text()
PROGRAM = "/opt/inferno/bin/inferno"


def values(key: str, unit: str = UNIT) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)


@pytest.mark.parametrize("drop_in", [None, "inferno-gpu.conf"])
def test_systemd_has_nothing_to_say(tmp_path: Path, drop_in: str | None) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here; Debian's package systemd has it")
    unit = tmp_path / "inferno.service"
    unit.write_text(UNIT.replace(PROGRAM, "/bin/true"))  # which must be there
    if drop_in is not None:
        (tmp_path / "inferno.service.d").mkdir()
        shutil.copy(DEPLOY / "systemd" / drop_in, tmp_path / "inferno.service.d")
    result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_it_starts_a_command_that_there_is() -> None:
    (command,) = values("ExecStart")
    assert command.split() == [PROGRAM, "serve"]
    assert "serve" in cli.list_commands(click.Context(cli))


def test_its_environment_is_settings(tmp_path: Path) -> None:
    given = dict(pair.split("=", 1) for pair in values("Environment"))
    assert given.keys() == {"INFERNO_CONFIG", "INFERNO_DATA_DIR"}
    (tmp_path / "config.toml").touch()
    settings = settings_of({**given, "INFERNO_CONFIG": str(tmp_path / "config.toml")})
    assert [f"/var/lib/{name}" for name in values("StateDirectory")] == [str(settings.data_dir)]


def test_it_stops_as_a_server_wants_to_stop() -> None:
    (stop,) = values("TimeoutStopSec")
    assert seconds(stop) >= longest_stop_s(settings_of({}))
    assert values("KillMode") == ["mixed"]  # a worker that gets SIGTERM too would cut its requests off


def test_a_worker_without_memory_ends_alone() -> None:
    assert values("OOMPolicy") == ["continue"]


def test_its_user_is_made() -> None:
    made = (DEPLOY / "systemd" / "inferno.sysusers").read_text().splitlines()[-1].split()
    assert made[:2] == ["u", *values("User")]
    assert values("User") == values("Group")


def test_commands_beside_it_are_told_where_its_database_is() -> None:
    (section,) = [part for part in PAGE.split("\n## ") if part.startswith("systemd")]
    commands = [line for line in section.replace("\\\n", "").splitlines() if f"{PROGRAM} security" in line]
    assert commands
    given = dict(pair.split("=", 1) for pair in values("Environment"))
    for command in commands:
        assert f"--config {given['INFERNO_CONFIG']}" in command
        assert f"--data-dir {given['INFERNO_DATA_DIR']}" in command


# Linux 6.3's own form of MemoryDenyWriteExecute=, which systemd uses since 254.
_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1
_CONFINED = f"""
import ctypes, os, sys
assert ctypes.CDLL(None).prctl({_SET_MDWE}, {_REFUSE_EXEC_GAIN}, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def _kernel_can() -> bool:
    return ctypes.CDLL(None).prctl(_SET_MDWE + 1, 0, 0, 0, 0) >= 0  # reads it


@pytest.mark.e2e
def test_a_server_lives_without_memory_that_is_written_and_executed(tmp_path: Path, tiny_model: Path) -> None:
    if not _kernel_can():
        pytest.skip("the kernel cannot refuse such memory; Linux 6.3 can")
    arguments = ["serve", "--port", "0", "--data-dir", tmp_path, "--alias", f"tiny={tiny_model}", "--model", "tiny"]
    environ = {**os.environ, "INFERNO_API_KEY": "a-key-of-the-test", "XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, "-c", _CONFINED, "-m", "inferno.cli.main", *arguments, "--context-size", "128"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            (url,) = re.findall(r"http://[\w.]+:\d+", server.stdout.readline())
            answer = httpx.post(
                f"{url}/inference",
                json={"model": "tiny", "prompt": "Hi", "max_tokens": 2, "ignore_eos": True},
                headers={"Authorization": "Bearer a-key-of-the-test"},
                timeout=60,
            )
            assert answer.json()["usage"]["completion_tokens"] == 2
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert server.returncode == 0
