import math
import random
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferno.webhooks.outcome import Outcome, retry_after_seconds
from inferno.webhooks.schedule import DELAYS, LONGEST, Next, after

pytestmark = pytest.mark.acceptance("K5")


def outcome(status: int | None = None, retry_after: float | None = None) -> Outcome:
    error = "timed_out" if status is None else None
    return Outcome(seconds=0.1, status=status, retry_after=retry_after, error=error)


def middle() -> float:
    return 0.5


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_only_2xx_is_delivered(status: int) -> None:
    assert after(outcome(status), attempts=1, age_s=0, draw=middle) == Next("delivered")


def test_gone_disables_the_endpoint() -> None:
    for attempts in (1, len(DELAYS)):
        assert after(outcome(410, 60), attempts=attempts, age_s=0, draw=middle) == Next("disable")


@pytest.mark.parametrize("status", [None, 100, 101, 199, 300, 301, 302, 307, 400, 401, 404, 429, 500, 502, 503, 599])
def test_everything_else_is_retried(status: int | None) -> None:
    assert after(outcome(status), attempts=1, age_s=0.1, draw=middle) == Next("retry", 30.0)


def test_the_delays_grow_and_end() -> None:
    delays, age = [], 0.0
    for attempts in range(1, len(DELAYS)):
        step = after(outcome(500), attempts=attempts, age_s=age, draw=middle)
        assert step.action == "retry"
        delays.append(step.delay_s)
        age += step.delay_s
    assert delays == [30, 300, 1800, 7200, 18000, 36000]
    assert after(outcome(500), attempts=len(DELAYS), age_s=age, draw=middle) == Next("dead")


@pytest.mark.parametrize(("drawn", "delay"), [(0.0, 270.0), (0.5, 300.0), (1.0, 330.0)])
def test_chance_spreads_by_a_tenth(drawn: float, delay: float) -> None:
    assert after(outcome(500), attempts=2, age_s=30, draw=lambda: drawn).delay_s == pytest.approx(delay)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_receiver_may_postpone(status: int) -> None:
    assert after(outcome(status, 900), attempts=1, age_s=0, draw=middle) == Next("retry", 900.0)


@pytest.mark.parametrize("status", [301, 400, 404, 500])
def test_others_may_not(status: int) -> None:
    assert after(outcome(status, 900), attempts=1, age_s=0, draw=middle) == Next("retry", 30.0)


@pytest.mark.parametrize("asked", [-1e12, -5.0, 0.0, 29.9])
def test_nobody_may_hasten(asked: float) -> None:
    assert after(outcome(503, asked), attempts=1, age_s=0, draw=middle) == Next("retry", 30.0)


def test_an_absurd_wait_ends_with_the_day() -> None:
    assert after(outcome(503, 1e12), attempts=1, age_s=400, draw=middle) == Next("retry", LONGEST - 400)
    assert after(outcome(503, 1e12), attempts=2, age_s=LONGEST, draw=middle) == Next("dead")


@given(
    st.lists(st.tuples(st.sampled_from([None, 404, 429, 500, 503]), st.floats(-1e9, 1e12)), min_size=7), st.integers()
)
def test_every_delivery_ends_within_a_day(answers: list[tuple[int | None, float]], seed: int) -> None:
    age, draw = 0.0, random.Random(seed).random
    for attempts, (status, asked) in enumerate(answers, start=1):
        step = after(outcome(status, asked), attempts=attempts, age_s=age, draw=draw)
        if step.action == "dead":
            break
        assert step.delay_s > 0
        age += step.delay_s
    assert step.action == "dead"
    assert attempts <= len(DELAYS)
    assert age <= LONGEST + 1e-6


# ---- Retry-After ----

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("-30", -30),
        ("99999999999999999999999", 1e9),
        ("-99999999999999999999999", -1e9),
        ("9" * 100_000, 1e9),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), -90),
        (formatdate(NOW + 90), 90),
        ("Wed, 15 Nov 2023 00:13:20 +0200", 0),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "soon", "1.5", "1e3", "\u0663", "12 34", "NaN", "Mon, 99 Foo 2023", "1 Jan 99999 00:00:00 GMT", "\x00"],
)
def test_a_retry_after_that_is_none(value: str) -> None:
    assert retry_after_seconds(value, NOW) is None


@given(st.text(max_size=80))
def test_no_retry_after_is_an_error(value: str) -> None:
    seconds = retry_after_seconds(value, time.time())
    assert seconds is None or math.isfinite(seconds)
