"""Rate limits: never more than allowed, nothing counted for what is refused, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inferno import errors
from inferno.config import load_settings
from inferno.identity import limits as limits_module
from inferno.identity.callers import Limits
from inferno.identity.limits import Admission, BoundedMemory, Exceeded, Limiter, open_storage
from limits.aio.storage import Storage


def limiter(storage: Storage | None = None, **limits: int) -> Limiter:
    flags = {f"limits.{name}": value for name, value in limits.items()}
    settings = load_settings(flags=flags, environ={"XDG_CONFIG_HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent"})
    return Limiter(settings.limits, storage)


async def request(limits: Limiter, subject: str = "key:a", own: Limits = Limits()) -> Admission:  # noqa: B008
    async with limits.admit(subject, own) as admission:
        assert admission is not None
        return admission


async def refused(limits: Limiter, subject: str = "key:a", own: Limits = Limits()) -> Exceeded:  # noqa: B008
    with pytest.raises(Exceeded) as caught:
        await request(limits, subject, own)
    return caught.value


async def reserve(limits: Limiter) -> None:
    async with limits.admit("key:a") as admission:
        assert admission is not None
        await admission.reserve(characters=4, max_tokens=4)


async def left(limits: Limiter, characters: int, max_tokens: int, subject: str = "key:a") -> int:
    """What a request is told to be left of the tokens, once what it may take is set aside."""
    async with limits.admit(subject) as admission:
        assert admission is not None
        await admission.reserve(characters, max_tokens)
        assert admission.tokens is not None
        return admission.tokens.remaining


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Moves the monotonic clock by hand."""

    class Clock:
        now = time.monotonic()

        def forward(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.anyio
@pytest.mark.acceptance("L1")
async def test_the_defaults(clock: Any) -> None:
    limits = limiter()
    for left in range(59, -1, -1):
        assert (await request(limits)).window.remaining == left
    error = await refused(limits)
    assert (error.window.name, error.window.limit) == ("requests_per_minute", 60)
    assert 58 <= error.details["retry_after"] <= 60
    assert f"retry after {error.details['retry_after']} seconds" in error.message


@pytest.mark.anyio
@pytest.mark.acceptance("L1")
@pytest.mark.parametrize(
    ("lifted", "name", "limit"),
    [
        (("requests_per_minute",), "requests_per_hour", 1000),
        (("requests_per_minute", "requests_per_hour"), "", 0),
    ],
)
async def test_the_default_of_an_hour(lifted: tuple[str, ...], name: str, limit: int) -> None:
    limits = limiter(**dict.fromkeys(lifted, 0))
    for _ in range(limit or 1001):
        await request(limits)
    if name:
        error = await refused(limits)
        assert (error.window.name, error.window.limit) == (name, limit)


@pytest.mark.anyio
@pytest.mark.acceptance("L1", "L4")
async def test_the_default_of_tokens_and_of_requests_at_once() -> None:
    limits = limiter()
    async with limits.admit("key:a") as admission:
        assert admission is not None
        await admission.reserve(characters=4, max_tokens=1_000_000)
        assert admission.tokens is not None
        assert (admission.tokens.limit, admission.tokens.remaining) == (10_000, 9_000)  # a tenth for each of ten
        await admission.settle(10_000)
        with pytest.raises(Exceeded):
            await reserve(limits)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(9):
                await stack.enter_async_context(limits.admit("key:a"))
            assert (await refused(limits)).window.limit == 10


@pytest.mark.anyio
@pytest.mark.acceptance("L1")
async def test_each_subject_has_its_own() -> None:
    limits = limiter(requests_per_minute=1)
    await request(limits, "key:a")
    await request(limits, "key:b")
    await refused(limits, "key:a")


@pytest.mark.anyio
async def test_a_window_ends_by_the_monotonic_clock(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = limiter(requests_per_minute=1)
    await request(limits)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400)  # somebody sets the wall clock
    assert 59 <= (await refused(limits)).window.resets_after_s <= 60
    clock.forward(59)
    await refused(limits)
    clock.forward(1.5)
    await request(limits)


@pytest.mark.anyio
@pytest.mark.acceptance("L1", "L4")
async def test_the_hour_counts_too_and_a_refusal_costs_nothing(clock: Any) -> None:
    limits = limiter(requests_per_minute=10, requests_per_hour=3)
    for _ in range(3):
        await request(limits)
    for _ in range(20):
        assert (await refused(limits)).window.name == "requests_per_hour"
    clock.forward(3601)
    assert (await request(limits)).window.remaining == 9


@pytest.mark.anyio
@pytest.mark.acceptance("L1")
async def test_at_once() -> None:
    limits = limiter(concurrent_requests=2, requests_per_minute=0)
    async with limits.admit("key:a"), limits.admit("key:a"):
        assert (await refused(limits)).window.name == "concurrent_requests"
        await request(limits, "key:b")
    await request(limits)
    assert not limits._running


@pytest.mark.anyio
async def test_fifty_at_once_admit_no_more_than_the_limit() -> None:
    limits = limiter(requests_per_minute=20, concurrent_requests=0)
    outcomes = await asyncio.gather(*(request(limits) for _ in range(50)), return_exceptions=True)
    admitted = [outcome for outcome in outcomes if isinstance(outcome, Admission)]
    assert sorted(admission.window.remaining for admission in admitted) == list(range(20))


@pytest.mark.anyio
@pytest.mark.acceptance("L1")
async def test_a_key_may_have_limits_of_its_own() -> None:
    limits = limiter(requests_per_minute=1)
    own = Limits(requests_per_minute=2, tokens_per_minute=0)
    await request(limits, own=own)
    await request(limits, own=own)
    await refused(limits, own=own)
    lifted = Limits(requests_per_minute=0)
    for _ in range(5):
        await request(limits, "key:b", lifted)


@pytest.mark.anyio
@pytest.mark.acceptance("L4")
async def test_tokens_are_settled_to_what_was_used() -> None:
    limits = limiter(tokens_per_minute=100, concurrent_requests=1)
    async with limits.admit("key:a") as admission:
        assert admission is not None
        await admission.reserve(characters=8, max_tokens=1_000_000)
        assert admission.tokens is not None
        assert admission.tokens.remaining == 0
        await admission.settle(30)
        await admission.settle(30)  # only once
    async with limits.admit("key:a") as admission:
        assert admission is not None
        await admission.reserve(characters=40, max_tokens=10)
        assert admission.tokens is not None
        assert admission.tokens.remaining == 50
        await admission.settle(90)
    with pytest.raises(Exceeded) as caught:
        await reserve(limits)
    assert (caught.value.window.name, caught.value.window.remaining) == ("tokens_per_minute", 0)


@pytest.mark.anyio
@pytest.mark.acceptance("L4")
async def test_a_request_refused_for_tokens_does_not_count() -> None:
    limits = limiter(tokens_per_minute=1, requests_per_minute=5)
    async with limits.admit("key:a") as admission:
        assert admission is not None
        await admission.reserve(4, 4)
        await admission.settle(10)
    for _ in range(10):
        with pytest.raises(Exceeded):
            await reserve(limits)
    assert (await request(limits)).window.remaining == 3


@pytest.mark.anyio
async def test_as_many_as_may_run_at_once_find_tokens_set_aside() -> None:
    limits = limiter(tokens_per_minute=1000, concurrent_requests=10)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            admission = await stack.enter_async_context(limits.admit("key:a"))
            assert admission is not None
            await admission.reserve(characters=10_000, max_tokens=2_000_000)


@pytest.mark.anyio
@pytest.mark.acceptance("L4")
async def test_what_outlives_its_minute_is_charged_to_the_next(clock: Any) -> None:
    limits = limiter(tokens_per_minute=100, concurrent_requests=1)
    async with limits.admit("key:a") as admission:
        assert admission is not None
        await admission.reserve(40, 10)
        clock.forward(61)
        await admission.settle(70)
    assert await left(limits, 0, 10) == 20


@pytest.mark.anyio
@pytest.mark.acceptance("L4")
async def test_what_ends_just_after_its_minute_gives_nothing_back_to_the_next(clock: Any) -> None:
    limits = limiter(tokens_per_minute=1000, concurrent_requests=1)
    await reserve(limits)
    clock.forward(59.2)
    async with limits.admit("key:a") as admission:
        assert admission is not None
        await admission.reserve(0, 900)
        clock.forward(0.9)  # into the next window, though within the rounded second that a client is told of
        await admission.settle(10)
    assert await left(limits, 0, 1) == 989


@pytest.mark.anyio
@pytest.mark.acceptance("L1")
async def test_switched_off() -> None:
    limits = limiter(enabled=False, requests_per_minute=1)
    for _ in range(5):
        async with limits.admit("key:a") as admission:
            assert admission is None


@pytest.mark.anyio
async def test_many_subjects_take_bounded_space() -> None:
    storage = BoundedMemory(max_counters=100)
    limits = limiter(storage)
    for i in range(1000):
        await request(limits, f"address:{i}")
    assert len(storage._counters) <= 100


@pytest.mark.anyio
async def test_a_storage_that_is_gone_is_replaced_by_counters_here() -> None:
    class Gone(BoundedMemory):
        async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
            raise ConnectionError

        async def get_expiry(self, key: str) -> float:
            raise ConnectionError

    limits = limiter(Gone(), requests_per_minute=2)
    await request(limits)
    await request(limits)
    await refused(limits)


@pytest.mark.parametrize("url", ["nonsense", "mongodb", "ftp://x"])
def test_a_storage_nobody_knows_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        open_storage(url)
    assert caught.value.field == "limits.storage"


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A Redis of the machine's own, on a port of its own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not at hand: install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ready to accept connections" in line:
                break
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()
        process.stdout.read()


@pytest.mark.anyio
async def test_servers_share_counters_in_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "_STORAGE_S", 60)  # one that is slow would not be asked again
    one, two = (limiter(open_storage(redis_url), requests_per_minute=3, tokens_per_minute=100) for _ in range(2))
    await request(one)
    await request(two)
    assert (await request(one)).window.remaining == 0
    error = await refused(two)
    assert 1 <= error.details["retry_after"] <= 60
    async with one.admit("key:b") as admission:
        assert admission is not None
        await admission.reserve(0, 10)
        await admission.settle(95)
    async with two.admit("key:b") as admission:
        assert admission is not None
        await admission.reserve(0, 10)
        assert admission.tokens is not None
        assert admission.tokens.remaining == 0
        await admission.settle(4)
    assert await left(one, 0, 1, "key:b") == 0
    for limits in (one, two):
        await limits._storage.bridge.get_connection().aclose()  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_redis_that_is_gone_lets_the_limits_stand(caplog: pytest.LogCaptureFixture) -> None:
    limits = limiter(open_storage("redis://127.0.0.1:1/0"), requests_per_minute=1)
    await request(limits)
    await refused(limits)
    assert caplog.text.count("storage does not answer") == 1  # not once for every request


@pytest.mark.anyio
async def test_a_storage_that_hangs_is_not_waited_for_again_and_again() -> None:
    class Hanging(BoundedMemory):
        calls = 0

        async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
            self.calls += 1
            await asyncio.Event().wait()
            return 0

    storage = Hanging()
    limits = limiter(storage, requests_per_minute=3)
    for _ in range(3):
        await request(limits)
    await refused(limits)
    assert storage.calls == 1
