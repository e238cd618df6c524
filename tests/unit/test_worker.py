import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_core import MEMORY
from inferno import errors
from inferno.engine import frames
from inferno.engine.restarts import RestartPolicy, Restarts
from inferno.engine.worker import Patience, WorkerEngine, _Progress, worker_environment
from inferno.engine.worker_main import _LONG_CHARACTERS, _TOKENIZER_THREADS
from inferno.request import Delta, EmbeddingRequest, EngineStats, Finish, Request, TextPrompt

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


FAKE_WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


class ManualTime:
    """A clock that a test moves. `sleep` ends when the clock passes its end."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, float, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, delay: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((delay, self.now + delay, future))
        await future

    async def until_sleeping(self, delay: float) -> None:
        """Wait until something sleeps for exactly `delay`."""
        while not any(d == delay and not future.done() for d, _, future in self._sleepers):
            await asyncio.sleep(0.001)  # paces a wait for another process; no test depends on its length

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for _, due, future in self._sleepers:
            if due <= self.now and not future.done():
                future.set_result(None)


@asynccontextmanager
async def worker(time: ManualTime | None = None, path: str = "fake", **fields: object) -> AsyncIterator[WorkerEngine]:
    if time is not None:
        fields |= {"clock": time.clock, "sleep": time.sleep}
    engine = await WorkerEngine.start(path, {"context_size": 64}, command=FAKE_WORKER, **fields)  # type: ignore[arg-type]
    try:
        yield engine
    finally:
        await engine.close()


def request(*prompts: str, **sampling: object) -> Request:
    return Request(model="m", prompts=[TextPrompt(prompt) for prompt in prompts], sampling=sampling)


async def text(engine: WorkerEngine, prompt: str, **sampling: object) -> str:
    return (await (await engine.submit(request(prompt, **sampling))).result()).text


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)  # paces a wait for another process; no test depends on its length


async def gone(pid: int) -> None:
    """Wait until the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert await asyncio.to_thread(select.select, [descriptor], [], [], 30.0) != ([], [], [])
    finally:
        os.close(descriptor)


# ---- serving --------------------------------------------------------------------------------------------------------


async def test_a_request_is_served() -> None:
    async with worker() as engine:
        generation = await engine.submit(request("one two", max_tokens=3))
        pieces = [event.text for _, event in [e async for e in generation] if isinstance(event, Delta)]
        assert "".join(pieces) == "one two one "


async def test_a_prompt_counts_from_its_acceptance_on() -> None:
    async with worker() as engine:
        generation = await engine.submit(Request(model="m", prompts=[TextPrompt("hang")] * 2, n=3))
        assert generation.n_tokens >= 2 * len("hang")
        generation.cancel()
        result = await generation.result()
        assert generation.n_tokens == result.usage.total_tokens


async def test_facts_cross_the_border() -> None:
    async with worker() as engine:
        assert (engine.context_size, engine.memory_bytes, engine.info.name) == (64, MEMORY, "Fake")
        stats = await engine.stats()
        assert stats == EngineStats(memory_bytes=MEMORY)
        assert (engine.state, engine.healthy, engine.restarts, engine.last_error) == ("ready", True, 0, None)


async def test_progress_is_reported() -> None:
    seen: list[float] = []
    engine = await WorkerEngine.start("fake", progress=seen.append, command=FAKE_WORKER)
    await engine.close()
    assert seen == pytest.approx([1 / 3, 2 / 3, 1.0])


async def test_many_requests_at_once() -> None:
    async with worker() as engine:
        texts = await asyncio.gather(*(text(engine, f"{i}", max_tokens=2) for i in range(50)))
        assert texts == [f"{i} {i} " for i in range(50)]


async def test_choices_come_back_in_order() -> None:
    async with worker() as engine:
        generation = await engine.submit(Request(model="m", prompts=[TextPrompt("a"), TextPrompt("b")], n=2))
        result = await generation.result()
        assert [(c.index, c.text) for c in result.choices] == [
            (0, "a a a "),
            (1, "a a a "),
            (2, "b b b "),
            (3, "b b b "),
        ]


async def test_embeddings() -> None:
    async with worker() as engine:
        embeddings = await engine.embed(EmbeddingRequest(model="m", inputs=[TextPrompt("ab")] * 300))
        assert len(embeddings.vectors) == 300
        assert embeddings.usage.prompt_tokens == 600


async def test_refusals_keep_their_type_and_details() -> None:
    async with worker() as engine:
        with pytest.raises(errors.ContextLengthExceeded) as caught:
            await engine.submit(request("x" * 64))
        assert caught.value.details == {"field": "prompt", "prompt_tokens": 64, "context_size": 64}
        with pytest.raises(errors.InvalidRequest) as refused:
            await engine.submit(request("\ud800"))
        assert type(refused.value) is errors.InvalidRequest


@pytest.mark.acceptance("X1")
async def test_an_unexpected_exception_says_nothing_and_leaves_nothing_stuck() -> None:
    async with worker() as engine:
        for _ in range(20):
            with pytest.raises(errors.InferenceFailed) as caught:
                await engine.submit(request("boom"))
            assert caught.value.to_dict() == {
                "code": "INFERENCE_FAILED",
                "message": "The engine failed.",
                "details": {},
            }
        assert [await text(engine, "a", max_tokens=1) for _ in range(100)] == ["a "] * 100


async def test_a_sequence_that_fails_takes_no_other_with_it() -> None:
    async with worker() as engine:
        hanging = await engine.submit(request("hang"))
        with pytest.raises(errors.InferenceFailed, match="computed no numbers"):
            await text(engine, "broken")
        hanging.cancel()
        assert (await hanging.result()).choices[0].finish_reason == "cancelled"


async def test_a_caller_that_leaves_while_submitting_leaves_no_work() -> None:
    async with worker() as engine:
        for _ in range(10):
            task = asyncio.create_task(engine.submit(request("hang")))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        process = engine._process
        assert process is not None
        await until(lambda: not process._calls)  # all answered, whatever of it was accepted cancelled
        assert (await engine.stats()).running == 0


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Until it is called, "gate fifo" is not tokenised."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with contextlib.ExitStack() as opened:

        def open_gate() -> None:
            opened.callback(os.close, os.open("fifo", os.O_RDWR))

        yield open_gate


async def test_a_caller_that_leaves_before_its_prompt_is_tokenised_costs_nothing(gate: Callable[[], None]) -> None:
    async with worker() as engine:
        busy = [asyncio.create_task(engine.submit(request("gate fifo"))) for _ in range(_TOKENIZER_THREADS)]
        leaving = [asyncio.create_task(engine.submit(request("hang"))) for _ in range(10)]
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        process = engine._process
        assert process is not None
        await until(lambda: len(process._calls) == len(busy))  # the others have been answered, with every thread busy
        gate()
        for generation in await asyncio.gather(*busy):
            await generation.result()
        assert (await engine.stats()).running == 0


async def test_long_prompts_delay_no_short_one(gate: Callable[[], None]) -> None:
    async with worker() as engine:
        long = [request("gate fifo", "x" * _LONG_CHARACTERS) for _ in range(_TOKENIZER_THREADS + 1)]
        waiting = [asyncio.create_task(engine.submit(prompts)) for prompts in long]
        await asyncio.sleep(0)
        assert await text(engine, "a", max_tokens=1) == "a "
        gate()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, errors.ContextLengthExceeded)


# ---- loading --------------------------------------------------------------------------------------------------------


async def test_a_bad_file_is_the_callers_mistake_and_leaves_no_process() -> None:
    before = set(children())
    with pytest.raises(errors.InvalidRequest) as caught:
        await WorkerEngine.start("bad", command=FAKE_WORKER)
    assert caught.value.to_dict() == {
        "code": "INVALID_REQUEST",
        "message": "The file is not a valid GGUF model.",
        "details": {"field": "model"},
    }
    assert set(children()) <= before


async def test_a_file_that_kills_the_engine_is_a_failure() -> None:
    with pytest.raises(errors.InferenceFailed, match="while it loaded the model"):
        await WorkerEngine.start("deadly", command=FAKE_WORKER)


async def test_giving_up_a_load_leaves_no_process() -> None:
    before = set(children())
    task = asyncio.create_task(
        WorkerEngine.start("fake", command=(sys.executable, "-c", "import signal; signal.pause()"))
    )
    await until(lambda: bool(set(children()) - before))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(children()) <= before


def children() -> list[int]:
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in listed.split()]


# ---- death and restart ----------------------------------------------------------------------------------------------


async def test_a_killed_worker_fails_its_streams_and_comes_back() -> None:
    time = ManualTime()
    async with worker(time) as engine:
        generation = await engine.submit(request("hang"))
        events = generation.__aiter__()
        assert await anext(events) == (0, Delta(1, "hang", 1))
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        _, end = await anext(events)
        assert isinstance(end, Finish)
        assert end.reason == "error"
        assert end.error is not None
        assert end.error.code == "INFERENCE_FAILED"

        await time.until_sleeping(0.5)
        assert (engine.state, engine.healthy, engine.last_error) == (
            "restarting",
            False,
            "The worker process ended: SIGKILL.",
        )
        with pytest.raises(errors.ServiceUnavailable) as caught:
            await engine.submit(request("a"))
        assert caught.value.details["retry_after"] == 1
        with pytest.raises(errors.ServiceUnavailable):
            await engine.stats()

        time.advance(0.5)
        await until(lambda: engine.state == "ready")
        assert engine.restarts == 1
        assert await text(engine, "a", max_tokens=1) == "a "


async def test_others_are_not_affected() -> None:
    async with worker(ManualTime()) as one, worker(ManualTime()) as other:
        generation = await other.submit(request("hang"))
        with pytest.raises(errors.InferenceFailed):
            await one.submit(request("die"))
        assert await text(other, "a", max_tokens=1) == "a "
        assert not generation.finished


async def test_requests_that_wait_for_an_answer_are_told() -> None:
    async with worker(ManualTime()) as engine:
        waiting = [asyncio.create_task(engine.submit(request("die"))) for _ in range(3)]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, errors.InferenceFailed)


async def test_after_too_many_crashes_it_gives_up() -> None:
    time = ManualTime()
    async with worker(time) as engine:
        for delay in (0.5, 1.0, 2.0, 4.0):
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            await time.until_sleeping(delay)
            time.advance(delay)
            await until(lambda: engine.state == "ready")
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.state == "failed")
        with pytest.raises(errors.ServiceUnavailable, match="load the model again"):
            await engine.submit(request("a"))
        assert engine.restarts == 4
        assert not engine.healthy


async def test_a_restart_that_does_not_load_counts_as_a_crash(tmp_path: Path) -> None:
    time = ManualTime()
    async with worker(time) as engine:
        engine._path = "bad"
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        for delay in (0.5, 1.0):
            await time.until_sleeping(delay)
            time.advance(delay)
        await time.until_sleeping(2.0)
        assert engine.last_error == "The file is not a valid GGUF model."
        engine._path = "fake"
        time.advance(2.0)
        await until(lambda: engine.state == "ready")


async def test_a_worker_that_loses_a_thread_is_replaced() -> None:
    time = ManualTime()
    async with worker(time) as engine:
        with pytest.raises(errors.InferenceFailed):
            await text(engine, "garbled")
        await time.until_sleeping(0.5)
        assert engine.last_error == "The worker process ended: exit status 1."


async def test_closing_while_restarting() -> None:
    time = ManualTime()
    async with worker(time) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await time.until_sleeping(0.5)
    assert engine.state == "closed"
    assert engine.pid is None


def test_delays_double_up_to_a_limit_and_start_anew_after_health() -> None:
    restarts = Restarts(RestartPolicy(longest_delay_s=3.0, max_crashes=100))
    assert [restarts.after_crash(i * 10.0, lived_s=1.0) for i in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert restarts.after_crash(200.0, lived_s=60.0) == 0.5
    assert restarts.after_crash(210.0, lived_s=1.0) == 1.0


def test_only_crashes_within_the_window_count() -> None:
    restarts = Restarts(RestartPolicy(max_crashes=3, crash_window_s=100.0))
    assert restarts.after_crash(0.0, 0.0) is not None
    assert restarts.after_crash(90.0, 0.0) is not None
    assert restarts.after_crash(150.0, 0.0) is not None
    assert restarts.after_crash(180.0, 0.0) is None


# ---- watchdog -------------------------------------------------------------------------------------------------------


async def test_a_stopped_worker_is_noticed_killed_and_replaced() -> None:
    time = ManualTime()
    async with worker(time) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        await time.until_sleeping(5.0)
        time.advance(5.0)
        await time.until_sleeping(15.0)
        assert engine.healthy
        time.advance(5.0)
        assert not engine.healthy
        assert engine.state == "ready"
        time.advance(10.0)
        await time.until_sleeping(0.5)
        assert engine.last_error == "The worker process ended: SIGKILL."
        time.advance(0.5)
        await until(lambda: engine.state == "ready")
        assert engine.healthy


async def test_a_worker_that_answers_stays() -> None:
    time = ManualTime()
    async with worker(time) as engine:
        pid = engine.pid
        for _ in range(5):
            await time.until_sleeping(5.0)
            time.advance(5.0)
        assert engine.pid == pid
        assert engine.healthy


def test_an_engine_with_work_that_takes_no_step_is_stuck() -> None:
    progress = _Progress(0.0)
    busy = EngineStats(running=1, steps_total=7)
    assert progress.stalled_s(busy, 10.0) == 0.0
    assert progress.stalled_s(busy, 25.0) == 15.0
    assert progress.stalled_s(EngineStats(running=1, steps_total=8), 30.0) == 0.0
    assert progress.stalled_s(EngineStats(steps_total=8), 100.0) == 0.0


async def test_a_worker_that_breaks_the_protocol_is_killed() -> None:
    babble = "import os, signal, sys; os.write(int(sys.argv[1]), b'\\xff' * 64); signal.pause()"
    with pytest.raises(errors.InferenceFailed):
        await WorkerEngine.start("fake", command=(sys.executable, "-c", babble))


# ---- closing --------------------------------------------------------------------------------------------------------


async def test_closing_ends_streams_and_process() -> None:
    engine = await WorkerEngine.start("fake", command=FAKE_WORKER)
    pid = engine.pid
    assert pid is not None
    generation = await engine.submit(request("hang"))
    await engine.close()
    assert (await generation.result()).choices[0].finish_reason == "cancelled"
    assert not Path(f"/proc/{pid}").exists()
    assert engine.state == "closed"
    with pytest.raises(errors.ServiceUnavailable):
        await engine.submit(request("a"))
    await engine.close()


async def test_a_worker_that_does_not_close_is_killed() -> None:
    engine = await WorkerEngine.start("fake", command=FAKE_WORKER, patience=Patience(exit_s=0.01))
    generation = await engine.submit(request("hang"))
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await engine.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(errors.ServiceUnavailable):
        await generation.result()


async def test_the_worker_dies_with_its_parent() -> None:
    script = f"""
import asyncio, os, signal
from inferno.engine.worker import WorkerEngine

async def main():
    engine = await WorkerEngine.start("fake", command={FAKE_WORKER!r})
    print(engine.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60
    )
    await gone(int(process.stdout))


# ---- what the worker is given ---------------------------------------------------------------------------------------


async def test_secrets_stay_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERNO_API_KEY", "canary-in-the-mine")
    monkeypatch.setenv("DATABASE_URL", "canary-in-the-mine")
    monkeypatch.setenv("OMP_SECRET_KEY", "canary-in-the-mine")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    async with worker() as engine:
        names = (await text(engine, "environ")).split(" ")
        assert "PATH" in names
        assert "OMP_NUM_THREADS" in names
        assert b"canary-in-the-mine" not in Path(f"/proc/{engine.pid}/environ").read_bytes()


async def test_no_descriptors_are_inherited() -> None:
    with open(os.devnull) as leaky:
        os.set_inheritable(leaky.fileno(), True)
        async with worker() as engine:
            open_here = (await text(engine, "fds")).split(" ")
            # Standard streams, the socket, the fake engine's pipe, and the directory being listed.
            assert len(open_here) == 7


async def test_it_has_a_session_of_its_own_and_goes_first_when_memory_runs_out() -> None:
    async with worker() as engine:
        assert engine.pid is not None
        assert os.getsid(engine.pid) == engine.pid
        own = int(Path("/proc/self/oom_score_adj").read_text())  # to go below it takes a right that users lack
        assert int(Path(f"/proc/{engine.pid}/oom_score_adj").read_text()) in (500, max(500, own))


def test_environment_is_an_allow_list() -> None:
    given = {
        "PATH": "p",
        "LANG": "C",
        "GGML_X": "1",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_TOKEN": "t",
        "CUDA_TOKEN": "t",
        "X": "y",
    }
    passed = worker_environment(given)
    assert passed.pop("GOMP_SPINCOUNT") == "1000"
    assert passed == {"PATH": "p", "LANG": "C", "GGML_X": "1", "CUDA_VISIBLE_DEVICES": "0"}


# ---- frames ---------------------------------------------------------------------------------------------------------


def test_frames_survive_any_cut() -> None:
    sent = [frames.Cancel([1, 2]), frames.AskStats(3), frames.Submit(4, request("a", logit_bias={5: 1.5}))]
    data = b"".join(bytes(frames.encode(message)) for message in sent)
    for size in range(1, len(data) + 1):
        reader = frames.FrameReader()
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        assert [frames.decode_to_worker(body) for part in parts for body in reader.feed(part)] == sent


def test_a_frame_that_claims_to_be_too_long_is_an_error() -> None:
    with pytest.raises(ValueError, match="too long"):
        list(frames.FrameReader().feed((frames.MAX_FRAME + 1).to_bytes(4, "big")))


def test_a_message_that_is_too_long_is_refused() -> None:
    with pytest.raises(errors.PayloadTooLarge):
        frames.encode(frames.Cancel([1 << 60] * (frames.MAX_FRAME // 9 + 1)))


def test_events_leave_as_the_engine_made_them() -> None:
    raw = [(0, 1, "a", 1, []), (1, 1, "stop", (1, 2, 0), (0.1, 0.2, 0.3), "x", None, b"1234")] * 1000
    reader = frames.FrameReader()
    messages = [
        frames.decode_from_worker(body) for frame in frames.encode_events(raw) for body in reader.feed(bytes(frame))
    ]
    assert [len(message.events) for message in messages if isinstance(message, frames.Events)] == [1024, 976]
    first, second = messages[0].events[:2]  # type: ignore[union-attr]
    assert first == Delta(1, "a", 1)
    assert isinstance(second, Finish)
    assert (second.stop_match, second.embedding) == ("x", b"1234")


def test_errors_cross_the_border_whole() -> None:
    error = errors.ContextLengthExceeded("Too long.", field="prompt", prompt_tokens=9, context_size=8)
    back = frames.Failure.of(error).exception()
    assert type(back) is errors.ContextLengthExceeded
    assert back.to_dict() == error.to_dict()
    assert frames.Failure.of(KeyError("secret")).exception().to_dict()["message"] == "The engine failed."


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 5),
        ({"prefix_store_path": "", "prefix_store_mb": 1000}, 5),
        ({"prefix_store_path": "/srv", "prefix_store_mb": 1000}, 25),
    ],
)
def test_one_that_writes_its_prefixes_is_given_time(options: dict[str, Any], seconds: float) -> None:
    assert Patience().to_exit_s(options) == seconds
