"""`inferno monitor` at a server that runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from inferno import errors
from inferno.cli.monitor.command import Reading, readings
from inferno.cli.monitor.sample import Sample
from inferno.request import EngineStats
from inferno.store.database import Database

from tests.cli.monitored import Monitored
from tests.cli.terminal import Terminal
from tests.fakes import FakeEngine
from tests.server.conftest import AUTH, KEY, MODEL, Live, make_services

Run = Callable[..., subprocess.CompletedProcess[str]]


class TalkingEngine(FakeEngine):
    """Has generated 100 tokens more whenever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self._tokens = 0

    async def stats(self) -> EngineStats:
        self._tokens += 100
        return EngineStats(running=3, parallel=8, completion_tokens_total=self._tokens)


@pytest.fixture
def server() -> Iterator[Live]:
    live = Live(make_services(TalkingEngine(), database=Database("")))
    httpx.post(f"{live.url}/models/{MODEL}/load", headers=AUTH).raise_for_status()
    yield live
    live.stop()
    live.services.database.close()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("INFERNO_")}
    return kept | {"INFERNO_DATA_DIR": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def at(server: Live) -> tuple[str, ...]:
    return ("monitor", "--url", server.url, "--key", KEY, "--interval", "0.2")


# ---- once ----


def test_one_frame(inferno: Run, server: Live) -> None:
    result = inferno(*at(server), "--once")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(server.url) == 1
    words = " ".join(result.stdout.split())
    assert "running 3 of 8 slots" in words
    assert "serving" in words
    assert "\x1b" not in result.stdout


def test_one_object(inferno: Run, server: Live) -> None:
    result = inferno(*at(server), "--once", "--json")
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert (found["url"], found["error"], found["draining"]) == (server.url, None, False)
    assert found["throughput"]["generated_tokens_per_s"] > 0
    assert found["interval_seconds"] > 0
    assert found["latency_ms"]["request"] == {"count": 0, "p50": None, "p90": None, "p99": None}
    assert [(model["id"], model["state"]) for model in found["models"]] == [(MODEL, "ready"), ("org/name", "unloaded")]
    assert found["batches"]["items"]["queued"] == 0
    assert found["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--interval", "0.1"), 2, "0.2<=x<=3600"),
        (("--interval", "3601"), 2, "0.2<=x<=3600"),
        (("--interval", "often"), 2, "--interval"),
        (("--once", "--url", "http://127.0.0.1:1"), 4, "No server answers"),
        (("--once", "--json", "--url", "http://127.0.0.1:1"), 4, "No server answers"),
        (("--once", "--url", "ftp://x"), 1, "--url"),
    ],
)
def test_mistakes(inferno: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    result = inferno("monitor", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert told in result.stderr


def test_who_may_not_see_is_told(inferno: Run, server: Live) -> None:
    """At once, also without --once: that does not mend itself."""
    assert "give --key" in inferno("monitor", "--url", server.url).stderr
    wrong = inferno("monitor", "--url", server.url, "--key", "wrong")
    assert wrong.returncode == 1
    assert "not valid" in wrong.stderr


# ---- again and again ----


def test_a_line_for_each_interval(server: Live, environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "inferno.cli.main", *at(server), "--json"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert all(line["throughput"]["generated_tokens_per_s"] > 0 for line in lines)


def test_frames_where_there_is_no_terminal(server: Live, environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "inferno.cli.main", *at(server)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        heads = 0
        while heads < 2:
            heads += server.url in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 0


class Answers:
    """What asking comes to, one after the other."""

    def __init__(self, *answers: Sample | errors.InfernoError) -> None:
        self._answers = iter(answers)

    def __call__(self) -> Sample:
        answer = next(self._answers)
        if isinstance(answer, errors.InfernoError):
            raise answer
        return answer


def test_a_server_that_goes_away_and_comes_back() -> None:
    server = Monitored("llama")
    first, second, third = (server.sample(at) for at in (10, 20, 60))
    gone, refused = errors.ServiceUnavailable("gone"), errors.AuthenticationFailed("another key")
    found = readings(Answers(gone, first, second, gone, refused, third), 0)
    assert [next(found) for _ in range(6)] == [
        Reading(before=None, now=None, problem=gone),
        Reading(before=None, now=first),
        Reading(before=first, now=second),
        Reading(before=first, now=second, problem=gone),
        Reading(before=first, now=second, problem=refused),
        Reading(before=second, now=third),
    ]


@pytest.mark.parametrize("problem", [errors.AuthenticationFailed("no"), errors.InternalError("no Inferno")])
def test_what_is_wrong_from_the_start_ends_it(problem: errors.InfernoError) -> None:
    with pytest.raises(type(problem)):
        next(readings(Answers(problem), 0))


# ---- on a terminal ----


@pytest.mark.parametrize("key", ["q", "Q", "\x03"])
def test_a_terminal_is_left_as_it_was(server: Live, environ: dict[str, str], key: str) -> None:
    with Terminal(*at(server), env=environ) as terminal:
        terminal.until(r"generated +[1-9][\d,.]* tokens/s")
        assert not terminal.is_as_before
        assert "╭─ Throughput" in terminal.text
        terminal.press(f"xyz{key}")
        assert terminal.ended() == 0
        assert terminal.is_as_before
        assert terminal.raw.count("\x1b[?1049h") == terminal.raw.count("\x1b[?1049l") == 1  # the other screen
        assert terminal.raw.count("\x1b[2J") <= 1  # no frame clears the screen, so none flickers
        assert "Traceback" not in terminal.text
        assert "xyz" not in terminal.text


def test_a_terminal_is_left_as_it_was_on_sigterm(server: Live, environ: dict[str, str]) -> None:
    with Terminal(*at(server), env=environ) as terminal:
        terminal.until("Throughput")
        terminal.process.terminate()
        assert terminal.ended() == 128 + signal.SIGTERM
        assert terminal.is_as_before
        assert terminal.raw.count("\x1b[?1049l") == 1


def test_it_follows_the_size_of_the_terminal(server: Live, environ: dict[str, str]) -> None:
    with Terminal(*at(server), env=environ) as terminal:
        terminal.until(r"Throughput ─+╮╭─ Latency ─+╮\r?\n")
        terminal.until("q leaves")
        terminal.resize(140, 30)
        terminal.until(r"Throughput ─+╮╭─ Latency ─+╮╭─ Queue")
        terminal.resize(50, 40)
        terminal.until(r"Throughput {10,}\r?\n")
        terminal.press("q")
        assert terminal.ended() == 0


def test_a_server_that_ends_is_missed(server: Live, environ: dict[str, str]) -> None:
    with Terminal(*at(server), env=environ) as terminal:
        terminal.until("serving")
        server.stop()
        terminal.until(r"No server answers at [^│]*Trying\s+again\.\s+These\s+figures\s+are\s+of")
        terminal.press("q")
        assert terminal.ended() == 0


def test_a_terminal_without_a_server_waits_for_one(environ: dict[str, str]) -> None:
    with Terminal("monitor", "--url", "http://127.0.0.1:1", env=environ) as terminal:
        terminal.until(r"Trying\s+again\.")
        terminal.press("q")
        assert terminal.ended() == 0


def test_refusals_leave_the_terminal_first(server: Live, environ: dict[str, str]) -> None:
    with Terminal("monitor", "--url", server.url, "--key", "wrong", env=environ) as terminal:
        assert terminal.ended() == 1
        assert terminal.is_as_before
        assert "not valid" in terminal.raw.split("\x1b[?1049l")[-1]


def test_a_dumb_terminal_gets_plain_frames(server: Live, environ: dict[str, str]) -> None:
    with Terminal(*at(server), env=environ, term="dumb") as terminal:
        terminal.until("Throughput")
        assert "\x1b" not in terminal.raw
        terminal.press("\x03")
        assert terminal.ended() == 0
