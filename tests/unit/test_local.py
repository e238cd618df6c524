import asyncio
import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest
from fake_core import MEMORY, FakeCore
from inferno import errors
from inferno.engine.embedding import PART
from inferno.engine.local import LocalEngine
from inferno.llm import AsyncTextStream, TextStream
from inferno.request import Delta, EmbeddingRequest, Event, Finish, Request, TextPrompt

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


def make(**options: object) -> tuple[LocalEngine, FakeCore]:
    cores: list[FakeCore] = []

    def open_core(path: str, given: dict[str, object], progress: Callable[[float], bool] | None) -> FakeCore:
        cores.append(FakeCore(path, given, progress, **options))  # type: ignore[arg-type]
        return cores[0]

    engine = LocalEngine("fake", {"context_size": 32}, open_core=open_core)  # type: ignore[arg-type]
    return engine, cores[0]


def request(prompt: str, **sampling: object) -> Request:
    return Request(model="m", prompts=[TextPrompt(prompt)], sampling=sampling)


def stepping(core: FakeCore) -> threading.Thread:
    """A thread that takes the core's steps until it has nothing to do."""
    thread = threading.Thread(target=lambda: [None for _ in iter(core.step, False)])
    thread.start()
    return thread


# ---- asynchronous ---------------------------------------------------------------------------------------------------


async def test_a_request_is_served() -> None:
    engine, core = make()
    result = await (await engine.submit(request("one two", max_tokens=4))).result()
    assert result.text == "one two one two "
    assert result.choices[0].finish_reason == "length"
    assert core.open_ids == []


async def test_facts() -> None:
    engine, _ = make()
    assert (engine.context_size, engine.memory_bytes, engine.info.name) == (32, MEMORY, "Fake")
    assert (await engine.stats()).memory_bytes == MEMORY
    assert engine.healthy
    assert engine.state == "ready"


async def test_many_tasks_share_an_engine() -> None:
    engine, core = make(runs_by_itself=False)
    generations = [await engine.submit(request(f"{i}", max_tokens=3)) for i in range(20)]
    tasks = [asyncio.create_task(generation.result()) for generation in generations]
    await asyncio.sleep(0)
    thread = stepping(core)
    assert [result.text for result in await asyncio.gather(*tasks)] == [f"{i} " * 3 for i in range(20)]
    thread.join()


async def test_pieces_arrive_while_the_text_is_generated() -> None:
    engine, core = make(runs_by_itself=False)
    generation = await engine.submit(request("a b"))
    events = generation.__aiter__()
    for expected in ("a ", "b ", "a "):
        core.step()
        assert await anext(events) == (0, Delta(1, expected, 1))
    core.step()
    _, end = await anext(events)
    assert isinstance(end, Finish)
    assert [event async for event in events] == []


async def test_no_reader_stays_with_the_loop() -> None:
    engine, core = make()
    await (await engine.submit(request("a"))).result()
    assert not asyncio.get_running_loop().remove_reader(core.wake_fd)


def test_one_engine_serves_one_loop_after_another() -> None:
    engine, _ = make()

    async def once() -> str:
        return (await (await engine.submit(request("a", max_tokens=1))).result()).text

    assert [asyncio.run(once()), asyncio.run(once())] == ["a ", "a "]


async def test_leaving_a_request_cancels_its_sequences() -> None:
    engine, core = make()
    generation = await engine.submit(request("hang"))
    task = asyncio.create_task(generation.result())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert core.open_ids == []


async def test_refusals_pass_through() -> None:
    engine, _ = make()
    with pytest.raises(errors.ContextLengthExceeded):
        await engine.submit(request("x" * 32))


async def test_long_lists_of_inputs_are_embedded_in_parts() -> None:
    engine, _ = make()
    inputs = [TextPrompt("x" * (1 + i % 5)) for i in range(2 * PART + 3)]
    embeddings = await engine.embed(EmbeddingRequest(model="m", inputs=inputs))
    assert [len(vector) for vector in embeddings.vectors] == [8] * len(inputs)
    assert embeddings.vectors[6] == engine.embed_now(EmbeddingRequest(model="m", inputs=inputs[6:7])).vectors[0]
    assert embeddings.usage.prompt_tokens == sum(1 + i % 5 for i in range(2 * PART + 3))


async def test_an_empty_list_of_inputs_is_refused() -> None:
    engine, _ = make()
    with pytest.raises(errors.InvalidRequest) as caught:
        await engine.embed(EmbeddingRequest(model="m", inputs=[]))
    assert caught.value.field == "input"


async def test_closing_ends_what_runs_and_refuses_the_rest() -> None:
    engine, core = make()
    generation = await engine.submit(request("hang"))
    await engine.close(0.0)
    assert (await generation.result()).choices[0].finish_reason == "cancelled"
    assert engine.state == "closed"
    assert core.closed_with == 0.0
    with pytest.raises(errors.ServiceUnavailable):
        await engine.submit(request("a"))


# ---- synchronous ----------------------------------------------------------------------------------------------------


def test_a_thread_waits_for_its_result() -> None:
    engine, core = make(runs_by_itself=False)
    generation = engine.submit_now(request("a", max_tokens=2))
    thread = stepping(core)
    assert engine.result(generation).text == "a a "
    thread.join()


def test_threads_and_loops_wait_side_by_side() -> None:
    engine, core = make(runs_by_itself=False)
    texts: dict[int, str] = {}
    started = threading.Barrier(13)

    def wait(i: int) -> None:
        generation = engine.submit_now(request(f"{i}", max_tokens=1 + i % 4))
        started.wait()
        texts[i] = engine.result(generation).text

    def wait_in_loop(i: int) -> None:
        async def run() -> None:
            generation = await engine.submit(request(f"{i}", max_tokens=1 + i % 4))
            await asyncio.to_thread(started.wait)
            texts[i] = (await generation.result()).text

        asyncio.run(run())

    threads = [threading.Thread(target=wait if i % 3 else wait_in_loop, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    started.wait()
    stepper = stepping(core)
    for thread in [*threads, stepper]:
        thread.join()
    assert texts == {i: f"{i} " * (1 + i % 4) for i in range(12)}


def test_a_thread_that_is_done_passes_the_lead_on() -> None:
    engine, core = make(runs_by_itself=False)
    short = engine.submit_now(request("a", max_tokens=1))
    long = engine.submit_now(request("b", max_tokens=3))
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda g=generation: results.append(engine.result(g).text))
        for generation in (short, long)
    ]
    threads[0].start()
    core.step()
    core.step()
    threads[0].join()
    threads[1].start()
    core.step()
    core.step()
    threads[1].join()
    assert results == ["a ", "b b b "]


def test_a_leading_thread_notices_what_others_drained() -> None:
    engine, core = make(runs_by_itself=False)
    generation = engine.submit_now(request("a", max_tokens=1))
    texts: list[str] = []
    waiting = threading.Event()
    wait_for_events = engine._lead.wait_for_events

    def wait() -> None:
        waiting.set()
        wait_for_events()

    engine._lead.wait_for_events = wait  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: texts.append(engine.result(generation).text))
    with engine._draining:  # the leader may see the events but not have them
        thread.start()
        waiting.wait()
        core.step()
        core.step()
        events = core.drain()
    engine._streams.feed(msgspec.convert(events, list[Event]))
    thread.join()
    assert texts == ["a "]


@contextlib.contextmanager
def interrupted(engine: LocalEngine) -> Iterator[None]:
    """The block waits until Ctrl-C ends it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    wait_for_events = engine._lead.wait_for_events

    def wait() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        wait_for_events()

    engine._lead.wait_for_events = wait  # type: ignore[method-assign]
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_cancels_what_is_waited_for() -> None:
    engine, core = make()
    generation = engine.submit_now(request("hang"))
    with interrupted(engine):
        engine.result(generation)
    assert core.cancelled == [1]


def test_an_interrupted_stream_has_a_result() -> None:
    engine, _ = make()
    stream = TextStream(engine, engine.submit_now(request("hang")))
    with interrupted(engine):
        list(stream)
    (choice,) = stream.result().choices
    assert (choice.text, choice.finish_reason) == ("hang", "cancelled")


async def test_an_asynchronous_stream_whose_wait_is_cancelled_has_a_result() -> None:
    engine, _ = make()
    stream = AsyncTextStream(engine, request("hang"))
    assert await anext(stream) == "hang"
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)  # it begins to wait
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    (choice,) = (await stream.result()).choices
    assert (choice.text, choice.finish_reason) == ("hang", "cancelled")


def test_the_result_of_a_broken_stream_is_its_error() -> None:
    engine, _ = make()
    stream = TextStream(engine, engine.submit_now(request("broken")))
    for _ in range(2):
        with pytest.raises(errors.InferenceFailed, match="computed no numbers"):
            stream.result()


@pytest.mark.parametrize("pieces_read", [0, 1])
def test_dropping_a_stream_cancels(pieces_read: int) -> None:
    engine, core = make()
    stream = TextStream(engine, engine.submit_now(request("hang")))
    for _ in range(pieces_read):
        next(stream)
    del stream
    gc.collect()
    assert core.open_ids == []


def test_an_error_in_one_choice_cancels_the_others() -> None:
    engine, core = make()
    generation = engine.submit_now(Request(model="m", prompts=[TextPrompt("broken"), TextPrompt("hang")]))
    with pytest.raises(errors.InferenceFailed, match="computed no numbers"):
        engine.result(generation)
    assert core.open_ids == []
