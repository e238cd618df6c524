"""The picture of `inferno monitor`, as text."""

from __future__ import annotations

import io
from typing import Any

import pytest
from inferno.cli.monitor.sample import Sample
from inferno.cli.monitor.view import duration, frame, milliseconds
from rich.console import Console

from tests.cli.monitored import URL, Monitored


def drawn(before: Sample | None, now: Sample | None, width: int = 80, **how: Any) -> str:
    console = Console(file=io.StringIO(), width=width, height=60, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(frame(before, now, url=URL, width=width, **how))
    return capture.get()


@pytest.fixture
def server() -> Monitored:
    server = Monitored("llama", "on-the-disk", "there-too")
    server.load("llama", restarts=2)
    server.says("llama")
    return server


def busy(server: Monitored) -> tuple[Sample, Sample]:
    before = server.sample(8_000)
    server.says("llama", completion_tokens_total=825, prompt_tokens_total=240)
    for _ in range(7):
        server.finish("llama", 0.3)
    server.metrics.count_inference("llama", 1.0, "TIMEOUT")
    return before, server.sample(8_002)


@pytest.fixture
def samples(server: Monitored) -> tuple[Sample, Sample]:
    return busy(server)


@pytest.mark.parametrize("width", [80, 100, 140, 200])
@pytest.mark.parametrize("boxed", [True, False])
def test_all_of_it_is_there(samples: tuple[Sample, Sample], width: int, boxed: bool) -> None:
    text = drawn(*samples, width=width, boxed=boxed)
    for words in (
        f"Inferno 9.8.7 {URL} serving up 2 h 13 min",
        "generated 412.5 tokens/s",
        "prompts 120.0 tokens/s",
        "requests 4.0 /s",
        "of batches 0.0 /s",
        "failures 0.5 /s",
        "p50 p90 p99",
        "first token 18 ms 24 ms 25 ms",
        "next token 7.5 ms 9.5 ms 9.9 ms",
        "request 375 ms 475 ms 498 ms",
        "7 succeeded in 2.0 s",
        "running 4 of 8 slots",
        "waiting 5",
        "KV tokens 900 of 32,768",
        "queued 180",
        "running 1 12",
        "done 12 4,000",
        "failed 0 2",
        "llama ready 412.5 3 1.0 GiB 4,096 2",
        "2 more not in memory",
    ):
        assert words in " ".join(text.replace("│", " ").split()), words
    assert max(map(len, text.splitlines())) <= width
    assert ("╭─ Throughput" in text) == boxed


def test_wide_terminals_show_more_of_each_model(samples: tuple[Sample, Sample]) -> None:
    assert "KV cache" not in drawn(*samples, width=80)
    assert "4 of 8" in drawn(*samples, width=100).split("Models")[1]
    lines = drawn(*samples, width=140).splitlines()
    assert all(title in lines[1] for title in ("Throughput", "Latency", "Queue", "Batches"))


@pytest.mark.parametrize("width", [20, 40, 60, 75])
def test_narrow_terminals_show_it_below_one_another(samples: tuple[Sample, Sample], width: int) -> None:
    text = drawn(*samples, width=width, boxed=False)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    assert "llama ready 412.5 tokens/s, 3 active, 1.0 GiB memory, 4,096 context, 2 restarts" in words


def test_before_there_are_rates(samples: tuple[Sample, Sample]) -> None:
    text = drawn(None, samples[1])
    assert text.count("measuring ...") == 2
    assert "tokens/s" not in text.split("Models")[0]
    assert "4 of 8 slots" in text


def test_nothing_happened(server: Monitored) -> None:
    now = server.sample(60)
    text = drawn(now, now)
    assert text.count("no data") == 3
    assert "0 succeeded" in text


def test_a_server_that_is_away(samples: tuple[Sample, Sample]) -> None:
    text = " ".join(drawn(*samples, problem="No server answers. Trying again.").split())
    assert "No server answers. Trying again. These figures are of " in text
    assert "412.5" in text


def test_a_server_that_never_answered() -> None:
    text = drawn(None, None, problem="No server answers. Trying again.", hint="q leaves")
    assert [line.strip() for line in text.splitlines()] == [URL, "No server answers. Trying again.", "q leaves"]


def test_a_server_that_drains(server: Monitored) -> None:
    server.figures["draining"] = True
    assert f"{URL}  draining" in drawn(None, server.sample(60))


def test_batches_nobody_tells_of(server: Monitored) -> None:
    server.figures |= {"batches": None, "batch_items": None}
    before, now = busy(server)
    text = drawn(before, now)
    assert "not known: the server does not tell" in text
    assert "of batches - /s" in " ".join(text.split())


def test_models_on_their_way(server: Monitored) -> None:
    server.load("llama", "loading", progress=0.45, context_size=0)
    server.silent("llama")
    server.load("on-the-disk", "failed", restarts=9)
    words = " ".join(drawn(None, server.sample(60)).split())
    assert "llama loading 45% - 3 - - 0" in words
    assert "on-the-disk failed - 3 - 4,096 9" in words
    assert "1 more not in memory" in words


def test_no_models() -> None:
    assert "0 not in memory" in drawn(None, Monitored().sample(60))
    assert "1 not in memory" in drawn(None, Monitored("llama").sample(60))


def test_names_do_not_steer_the_terminal(server: Monitored) -> None:
    server.load("\x1b[2Jevil[red]", "failed")
    text = drawn(None, server.sample(60), problem="\x1b]0;x\x07")
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
    assert "evil[red]" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.25, "0.2 ms"),
        (9.94, "9.9 ms"),
        (41.2, "41 ms"),
        (999, "999 ms"),
        (1250, "1.2 s"),
        (3e5, "300 s"),
    ],
)
def test_milliseconds(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (8000, "2 h 13 min"), (273_600, "3 d 4 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
