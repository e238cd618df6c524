"""`inferno upgrade` with real pips, in virtual environments of their own, from an index on loopback."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inferno
import pytest

from tests import package_index
from tests.package_index import PACKAGE, PART, PackageIndex, environment, part, put, sample

_BROKEN = "raise ImportError('libengine.so: cannot open')"


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with package_index.serving() as serving:
        yield serving


class Installed:
    """Version 1.0 of the stand-in in an environment of its own, and the command that upgrades it."""

    def __init__(self, directory: Path, index: PackageIndex) -> None:
        self.index = index
        self.directory = directory
        index.files |= sample("1.0") | part("1.0")
        self.python = environment(directory / "environment")
        put(self.python, index, f"{PACKAGE}==1.0")

    def command(self, *arguments: str, **settings: str) -> dict[str, Any]:
        """What subprocess needs to run `inferno upgrade`."""
        environ = {
            "INFERNO_DATA_DIR": str(self.directory / "data"),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "INFERNO_UPGRADE_PACKAGE": PACKAGE,
            "INFERNO_UPGRADE_INDEX": self.index.url,
            "COLUMNS": "200",
            **{f"INFERNO_UPGRADE_{name.upper()}": value for name, value in settings.items()},
        }
        args = [sys.executable, "-m", "inferno.cli.main", "upgrade", arguments[0], "--python", str(self.python)]
        return {"args": [*args, *arguments[1:]], "env": package_index.environ(**environ), "text": True}

    def upgrade(self, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, **settings)
        return subprocess.run(**command, input=stdin, capture_output=True, timeout=120)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(**self.command(*arguments), **pipes, start_new_session=True)

    def json(self, *arguments: str, **settings: str) -> Any:
        result = self.upgrade(*arguments, "--json", **settings)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def history(self) -> list[tuple[str, str, str, str]]:
        return [(r["action"], r["from"], r["to"], r["outcome"]) for r in self.json("history")]

    def versions(self) -> dict[str, str]:
        """What the environment itself says."""
        code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        result = subprocess.run([self.python, "-I", "-c", code], capture_output=True, check=True)
        packages: dict[str, str] = json.loads(result.stdout)
        return packages

    @property
    def lock(self) -> Path:
        return self.directory / "environment" / ".inferno-upgrade.lock"


@pytest.fixture
def installed(tmp_path: Path, index: PackageIndex) -> Installed:
    return Installed(tmp_path, index)


# ---- check ----


@pytest.mark.parametrize("speaks_json", [True, False])
def test_a_newer_version_is_told_and_not_installed(
    installed: Installed, index: PackageIndex, speaks_json: bool
) -> None:
    index.files |= sample("1.1") | sample("1.10") | sample("2.0b1")
    index.files["inferno_sample-3.0.tar.gz"] = b"code that a look would run"
    index.speaks_json = speaks_json
    told = installed.json("check")
    expected = {"package": PACKAGE, "channel": "stable", "installed": "1.0", "latest": "1.10", "newer": True}
    assert told == expected
    assert "1.10 is available; 1.0 is installed" in installed.upgrade("check").stdout
    assert ": 1.10\n" in installed.upgrade("status").stdout.replace(" \n", "\n").replace("  ", "")
    assert installed.versions() == {PACKAGE: "1.0"}
    assert installed.json("status")["last_check"]["latest"] == "1.10"


def test_versions_before_a_release_count_in_the_beta_channel_only(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("2.0b1")
    assert installed.json("check")["newer"] is False
    told = installed.json("check", channel="beta")
    assert (told["latest"], told["newer"]) == ("2.0b1", True)
    assert installed.json("status")["last_check"] is None  # the other channel's says nothing of this one
    index.files = sample("2.0b1")
    assert installed.json("check")["latest"] is None


def test_nothing_newer(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("0.9")
    assert "has nothing newer" in installed.upgrade("check").stdout
    result = installed.upgrade("install", "--yes")
    assert (result.returncode, installed.history()) == (0, [])
    assert "nothing to do" in result.stdout


def test_withdrawn_versions_are_not_offered(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("1.1")
    index.withdrawn |= set(sample("1.1"))
    assert installed.json("check")["newer"] is False
    result = installed.upgrade("install", "1.1", stdin="n\n")
    assert "have withdrawn it" in result.stderr
    assert result.returncode == 1


@pytest.mark.parametrize(
    "page",
    [
        ("text/html", b"<a href='x'>garbage</a><a href"),
        ("text/plain", b"hello"),
        ("application/vnd.pypi.simple.v1+json", b"{not json"),
        ("application/vnd.pypi.simple.v1+json", b'{"files": 3}'),
    ],
)
def test_a_malformed_index(installed: Installed, index: PackageIndex, page: tuple[str, bytes]) -> None:
    index.page = page
    result = installed.upgrade("check")
    assert result.returncode == 4
    assert result.stderr.startswith("error: The index has no usable wheel of inferno-sample: ")
    assert "Traceback" not in result.stderr
    assert installed.json("status")["last_check"]["problem"] in result.stderr


def test_an_index_that_cannot_be_reached(installed: Installed, tmp_path: Path) -> None:
    result = installed.upgrade("check", index="http://127.0.0.1:1/simple")
    assert result.returncode == 4
    assert "Connection refused" in result.stderr
    assert installed.upgrade("check", index=(tmp_path / "nothing").as_uri()).returncode == 4


def test_an_index_of_files(installed: Installed, tmp_path: Path) -> None:
    project = tmp_path / "files" / PACKAGE
    project.mkdir(parents=True)
    for name, content in sample("1.1").items():
        (project / name).write_bytes(content)
        (project / "index.html").write_text(f'<a href="{name}">{name}</a>')
    assert installed.json("check", index=(tmp_path / "files").as_uri())["latest"] == "1.1"


# ---- install ----


def test_install_asks_first(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("1.1")
    for answer in ("n\n", ""):
        result = installed.upgrade("install", stdin=answer)
        assert result.returncode == 1
        assert "inferno-sample 1.1 replaces 1.0." in result.stderr
        assert "Nothing was changed" in result.stderr
    assert (installed.versions(), installed.history()) == ({PACKAGE: "1.0"}, [])


def test_install_and_back_again(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("1.1", requires=f"{PART}>=1") | sample("1.2")
    result = installed.upgrade("install", "1.1", stdin="y\n")
    assert result.returncode == 0, result.stderr
    assert "inferno-sample 1.1 is installed and works" in result.stdout
    assert installed.upgrade("install", "--yes").returncode == 0
    assert installed.versions() == {PACKAGE: "1.2", PART: "1.0"}
    status = installed.json("status")
    assert (status["installed"], status["rollback_to"], status["last_install"]["to"]) == ("1.2", "1.1", "1.2")

    index.files |= sample("1.3", core=_BROKEN)
    assert installed.upgrade("install", "--yes").returncode == 1
    index.files.clear()  # going back needs no index: the wheel was kept
    assert installed.upgrade("rollback", stdin="n\n").returncode == 1
    assert installed.upgrade("rollback", "--yes").returncode == 0
    assert installed.versions()[PACKAGE] == "1.1"
    assert installed.history() == [
        ("install", "1.0", "1.1", "done"),
        ("install", "1.1", "1.2", "done"),
        ("install", "1.2", "1.3", "rolled back"),
        ("rollback", "1.2", "1.1", "done"),
    ]
    table = installed.upgrade("history").stdout
    assert table.index("install") < table.index("rollback")
    assert installed.json("status")["rollback_to"] == "1.0"


def test_nothing_to_go_back_to(installed: Installed) -> None:
    result = installed.upgrade("rollback", "--yes")
    assert (result.returncode, installed.json("status")["rollback_to"]) == (3, None)
    assert "no upgrade to undo" in result.stderr


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (sample("1.1", core=_BROKEN, requires=f"{PART}>=2"), "libengine.so: cannot open"),
        (sample("1.1", says="1.0"), "'1.0', not 1.1"),
        (sample("1.1", scripts=False), "`inferno --version` cannot be run"),
    ],
    ids=["import", "version", "command"],
)
def test_a_version_that_does_not_work_is_rolled_back(
    installed: Installed, index: PackageIndex, new: dict[str, bytes], why: str
) -> None:
    put(installed.python, index, PART)
    index.files |= new | part("2.0")
    result = installed.upgrade("install", "--yes")
    assert result.returncode == 1
    assert why in result.stderr
    assert "1.0 is installed again and works" in result.stderr
    assert installed.versions() == {PACKAGE: "1.0", PART: "1.0"}  # with what came along
    assert installed.history() == [("install", "1.0", "1.1", "rolled back")]
    assert installed.json("status")["rollback_to"] is None


def test_neither_version_works(installed: Installed, index: PackageIndex, tmp_path: Path) -> None:
    needed = tmp_path / "libsystem.so"
    needed.touch()
    core = f"open({str(needed)!r}).close()"
    index.files |= sample("1.0.1", core=core) | sample("1.1", core=_BROKEN)
    assert installed.upgrade("install", "1.0.1", "--yes").returncode == 0
    needed.unlink()
    result = installed.upgrade("install", "--yes")
    assert result.returncode == 5
    assert installed.upgrade("rollback", "--yes").returncode == 5

    needed.touch()
    by_hand = next(line for line in result.stderr.splitlines() if "By hand: " in line).partition("By hand: ")[2]
    subprocess.run(shlex.split(by_hand), env=package_index.environ(), check=True, capture_output=True)
    assert installed.versions() == {PACKAGE: "1.0.1"}
    assert installed.json("status")["rollback_to"] == "1.0.1"
    assert installed.upgrade("rollback", "--yes").returncode == 0
    assert installed.versions() == {PACKAGE: "1.0.1"}
    assert [outcome for *_, outcome in installed.history()] == ["done", "broken", "broken", "done"]


def test_without_a_way_back_nothing_is_changed(installed: Installed, index: PackageIndex) -> None:
    index.files = sample("1.1")
    result = installed.upgrade("install", "--yes")
    assert result.returncode == 4
    assert "inferno-sample 1.0 could not be downloaded, and nothing was changed" in result.stderr
    assert (installed.versions(), installed.history()) == ({PACKAGE: "1.0"}, [])


def test_what_it_needs_cannot_be_had(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("1.1", requires="inferno-nowhere")
    result = installed.upgrade("install", "--yes")
    assert result.returncode == 1
    assert "inferno-nowhere" in result.stderr
    assert "nothing was changed" in result.stderr
    assert installed.history() == [("install", "1.0", "1.1", "failed")]


def test_an_older_version_when_it_is_named(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("0.9")
    assert "1.0, which is newer" in installed.upgrade("install", "0.9", "--yes").stderr
    assert installed.versions() == {PACKAGE: "0.9"}


def test_a_version_that_is_not_there(installed: Installed) -> None:
    result = installed.upgrade("install", "7.0", "--yes")
    assert result.returncode == 3
    assert "inferno-sample==7.0" in result.stderr


@pytest.mark.parametrize("version", ["--index-url=http://evil", "1.0; import os", "../x", "latest", "1.0 --pre"])
def test_what_is_no_version(installed: Installed, version: str) -> None:
    result = installed.upgrade("install", "--yes", "--", version)
    assert result.returncode == 1
    assert "is not a version" in result.stderr
    assert installed.index.requests.count(f"/simple/{PACKAGE}/") == 1  # that of the first install


# ---- refusals ----


def _claim(installed: Installed, direct_url: dict[str, Any]) -> None:
    about = next((installed.directory / "environment").glob("lib/python*/site-packages/inferno_sample-*.dist-info"))
    (about / "direct_url.json").write_text(json.dumps(direct_url))


@pytest.mark.parametrize(
    ("direct_url", "why"),
    [
        ({"url": "file:///src", "dir_info": {"editable": True}}, "editable"),
        ({"url": "file:///src", "dir_info": {}}, "built from source"),
        ({"url": "file:///inferno_sample-1.0.tar.gz", "archive_info": {}}, "built from source"),
    ],
)
def test_other_installs_are_left_alone(installed: Installed, direct_url: dict[str, Any], why: str) -> None:
    installed.index.files |= sample("1.1")
    _claim(installed, direct_url)
    for verb in ("install", "rollback"):
        result = installed.upgrade(verb, "--yes")
        assert result.returncode == 1
        assert why in result.stderr
    assert why in installed.json("status")["refusal"]
    assert installed.json("check")["newer"] is True  # to look does no harm
    assert installed.versions() == {PACKAGE: "1.0"}


def test_an_install_from_a_wheel_file_may_be_upgraded(installed: Installed) -> None:
    installed.index.files |= sample("1.1")
    name = next(iter(sample("1.0")))
    (installed.directory / name).write_bytes(sample("1.0")[name])
    put(installed.python, installed.index, "--force-reinstall", str(installed.directory / name))
    assert installed.upgrade("install", "--yes").returncode == 0
    assert installed.versions() == {PACKAGE: "1.1"}


def test_an_environment_without_pip(installed: Installed) -> None:
    next((installed.directory / "environment").glob("lib/python*/site-packages/borrowed.pth")).unlink()
    result = installed.upgrade("install", "--yes")
    assert result.returncode == 1
    assert "no pip" in result.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [("package", "-r evil.txt"), ("index", "ssh://host/simple"), ("index", "https://user:secret@host/simple")],
)
def test_bad_settings_are_named(installed: Installed, setting: str, value: str) -> None:
    result = installed.upgrade("check", **{setting: value})
    assert result.returncode == 1
    assert f"upgrade.{setting}" in result.stderr
    assert "secret" not in result.stderr


def test_a_package_that_is_not_installed(installed: Installed) -> None:
    assert installed.upgrade("check", package="inferno-other").returncode == 3


def test_what_is_no_python(installed: Installed) -> None:
    installed.python = Path("/bin/true")
    assert "does not answer as a Python does" in installed.upgrade("status").stderr


# ---- at once, and cut off ----


def test_two_at_once(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("1.1")
    index.held = "/files/inferno_sample-1.0"
    with installed.begin("install", "--yes") as first:
        assert index.reached.wait(60)
        second = installed.upgrade("install", "--yes")
        index.release.set()
        first.communicate(timeout=60)
    assert second.returncode == 4
    assert "Another upgrade of this environment is running" in second.stderr
    assert first.returncode == 0
    assert installed.versions() == {PACKAGE: "1.1"}


def test_an_interrupted_install(installed: Installed, index: PackageIndex) -> None:
    index.files |= sample("1.1", requires=f"{PART}>=1")
    index.held = "/files/inferno_part"
    with installed.begin("install", "--yes") as process:
        assert index.reached.wait(60)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in said
    assert installed.versions() == {PACKAGE: "1.0"}
    assert installed.history() == [("install", "1.0", "1.1", "failed")]


def test_a_killed_install(installed: Installed, index: PackageIndex) -> None:
    """pip goes on, and nobody comes between; then what was there before is restored."""
    index.files |= sample("1.1", requires=f"{PART}>=1")
    index.held = "/files/inferno_part"
    with installed.begin("install", "--yes") as process:
        assert index.reached.wait(60)
        process.kill()
    index.held = ""
    assert "Another upgrade" in installed.upgrade("rollback", "--yes").stderr
    index.release.set()
    with installed.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pip has ended

    status = installed.json("status")
    assert (status["installed"], status["unfinished"]["to"], status["rollback_to"]) == ("1.1", "1.1", "1.0")
    assert "`inferno upgrade rollback` restores" in installed.upgrade("status").stdout
    refused = installed.upgrade("install", "--yes")
    assert refused.returncode == 1
    assert "did not end" in refused.stderr
    assert installed.upgrade("rollback", "--yes").returncode == 0
    assert installed.versions()[PACKAGE] == "1.0"
    assert installed.history() == [("install", "1.0", "1.1", "started"), ("rollback", "1.1", "1.0", "done")]


def test_the_environment_is_this_one_unless_another_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inferno.cli.main", "upgrade", "status", "--json"]
    environ = package_index.environ(INFERNO_DATA_DIR=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    result = subprocess.run(command, env=environ, capture_output=True, check=True)
    assert json.loads(result.stdout)["installed"] == inferno.__version__


# ---- the server's notice ----


def test_serve_tells_of_a_newer_version(index: PackageIndex, tmp_path: Path) -> None:
    name, content = package_index.wheel("inferno-server", "99.0", {})
    index.files[name] = content
    environ = {
        "INFERNO_DATA_DIR": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "INFERNO_UPGRADE_INDEX": index.url,
        "INFERNO_UPGRADE_CHECK": "true",
    }
    command = [sys.executable, "-m", "inferno.cli.main", "serve", "--port", "0", "--no-auth"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=package_index.environ(**environ), **pipes) as server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "99.0" in line)
        server.terminate()
    assert f"inferno-server 99.0 is available, {inferno.__version__} is installed" in line
    assert server.returncode == 0
