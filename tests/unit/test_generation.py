import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest
from inferno import errors
from inferno.engine.generation import Collector, EmbeddingJob, Generation, total_usage
from inferno.engine.streams import Streams, or_cancel
from inferno.request import (
    Delta,
    EmbeddingRequest,
    ErrorInfo,
    Finish,
    Request,
    TextPrompt,
    Timings,
    TokenLogprob,
    Usage,
)

pytestmark = pytest.mark.anyio

LOST = ErrorInfo("INFERENCE_FAILED", "The engine is gone.")


def delta(sequence_id: int, text: str) -> Delta:
    return Delta(sequence_id, text, 1)


def finish(sequence_id: int, reason: str = "stop", prompt: int = 5, completion: int = 2) -> Finish:
    return Finish(sequence_id, reason, Usage(prompt, completion, 1), Timings())  # type: ignore[arg-type]


def make(n: int = 1, ids: tuple[int, ...] = (7,)) -> tuple[Generation, list[list[int]]]:
    cancelled: list[list[int]] = []
    request = Request(model="m", prompts=[TextPrompt("x")], n=n)
    return Generation(request, ids, 5, cancelled.append), cancelled


# ---- feeding and taking ---------------------------------------------------------------------------------------------


def test_waiting_deltas_of_a_sequence_are_merged() -> None:
    generation, _ = make(2, (7, 8))
    logprob = TokenLogprob(1, -0.5, b"a")
    generation.feed(Delta(7, "a", 1, [logprob]))
    generation.feed(delta(8, "x"))
    generation.feed(Delta(7, "b", 2, [logprob]))
    assert generation.take() == [(0, Delta(7, "ab", 3, [logprob, logprob])), (1, delta(8, "x"))]
    assert generation.take() == []


def test_merging_leaves_the_events_it_was_fed_alone() -> None:
    generation, _ = make()
    first = Delta(7, "a", 1, [TokenLogprob(1, -0.5, b"a")])
    generation.feed(first)
    generation.feed(Delta(7, "b", 1, [TokenLogprob(2, -0.5, b"b")]))
    generation.take()
    assert first == Delta(7, "a", 1, [TokenLogprob(1, -0.5, b"a")])


def test_a_finish_comes_after_its_deltas_and_nothing_comes_after_it() -> None:
    generation, _ = make()
    generation.feed(delta(7, "a"))
    generation.feed(finish(7))
    generation.feed(delta(7, "late"))
    generation.feed(finish(7, "error"))
    assert generation.finished
    assert not generation.exhausted
    assert generation.take() == [(0, delta(7, "a")), (0, finish(7))]
    assert generation.exhausted


def test_events_of_strangers_are_dropped() -> None:
    generation, _ = make()
    generation.feed(delta(99, "a"))
    assert not generation.has_events


def test_pending_bytes_counts_utf8_until_taken() -> None:
    generation, _ = make()
    generation.feed(delta(7, "aé"))
    generation.feed(delta(7, "🙂"))
    assert generation.pending_bytes == 7
    generation.take()
    assert generation.pending_bytes == 0


def test_each_prompt_counts_once_and_what_has_been_said_counts_whatever_comes() -> None:
    generation, _ = make(2, (7, 8))
    assert generation.n_tokens == 5
    generation.feed(Delta(7, "abc", 3))
    assert generation.n_tokens == 8
    generation.feed(finish(7, completion=4))  # of which one had no text
    generation.feed(delta(8, "x"))
    generation.fail(LOST)
    assert generation.n_tokens == 10


def test_fail_ends_every_open_sequence_once() -> None:
    generation, _ = make(2, (7, 8))
    generation.feed(finish(7))
    generation.fail(LOST)
    generation.fail(LOST)
    assert [(i, e.reason) for i, e in generation.take() if isinstance(e, Finish)] == [(0, "stop"), (1, "error")]


def test_cancel_names_the_open_sequences_only() -> None:
    generation, cancelled = make(3, (7, 8, 9))
    generation.feed(finish(8))
    generation.cancel()
    assert cancelled == [[7, 9]]
    generation.fail(LOST)
    generation.cancel()
    assert cancelled == [[7, 9]]


# ---- waiting --------------------------------------------------------------------------------------------------------


async def collect(generation: Generation) -> list[object]:
    return [event async for _, event in generation]


async def test_iterating_waits_and_ends_with_the_last_finish() -> None:
    generation, cancelled = make(2, (7, 8))
    task = asyncio.create_task(collect(generation))
    for event in (delta(7, "a"), finish(7), delta(8, "b"), finish(8)):
        await asyncio.sleep(0)
        generation.feed(event)
    assert await task == [delta(7, "a"), finish(7), delta(8, "b"), finish(8)]
    assert cancelled == []


async def test_leaving_early_cancels() -> None:
    generation, cancelled = make()
    generation.feed(delta(7, "a"))
    async with contextlib.aclosing(generation.__aiter__()) as events:
        async for _ in events:
            break
    assert cancelled == [[7]]


async def test_a_cancelled_task_cancels_its_generation() -> None:
    generation, cancelled = make()
    task = asyncio.create_task(generation.result())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == [[7]]


async def test_result_is_not_woken_for_pieces() -> None:
    generation, _ = make()
    waits = 0

    @contextlib.contextmanager
    def listen() -> Iterator[None]:
        nonlocal waits
        waits += 1
        yield

    generation._listen = listen
    task = asyncio.create_task(generation.result())
    for _ in range(50):
        await asyncio.sleep(0)
        generation.feed(delta(7, "a"))
    generation.feed(finish(7))
    assert (await task).text == "a" * 50
    assert waits == 1


async def test_result_raises_what_ended_a_sequence_and_cancels_the_others() -> None:
    generation, cancelled = make(2, (7, 8))
    generation.feed(finish(7, "timeout"))
    with pytest.raises(errors.RequestTimeout):
        await generation.result()
    assert cancelled == [[8]]


async def test_fed_from_another_thread() -> None:
    generation, _ = make()
    fed = threading.Thread(target=lambda: [generation.feed(e) for e in (delta(7, "a"), delta(7, "b"), finish(7))])
    task = asyncio.create_task(generation.result())
    await asyncio.sleep(0)
    fed.start()
    assert (await task).text == "ab"
    fed.join()


async def test_a_nudge_ends_a_wait_and_is_not_lost() -> None:
    generation, _ = make()
    generation.nudge()
    await generation.arrived()
    task = asyncio.create_task(generation.arrived())
    await asyncio.sleep(0)
    assert not task.done()
    generation.nudge()
    await task
    assert not generation.has_events


def test_feeding_a_consumer_whose_loop_is_closed_is_harmless() -> None:
    generation, _ = make()

    async def give_up() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(generation.arrived(), 0)

    async def wait_once() -> None:
        task = asyncio.create_task(generation.arrived())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(wait_once())
    generation.feed(delta(7, "a"))
    asyncio.run(give_up())
    assert generation.take() == [(0, delta(7, "a"))]


# ---- results --------------------------------------------------------------------------------------------------------


def test_collector_joins_pieces_and_counts_each_prompt_once() -> None:
    collector = Collector(Request(model="m", prompts=[TextPrompt("x"), TextPrompt("y")], n=2, id="inf_1", created=3))
    for index, prompt_tokens in ((3, 6), (0, 5), (2, 6), (1, 5)):
        collector.add(index, delta(0, f"{index}"))
        collector.add(index, delta(0, "!"))
        collector.add(index, finish(0, prompt=prompt_tokens))
    result = collector.result()
    assert [choice.text for choice in result.choices] == ["0!", "1!", "2!", "3!"]
    assert result.text == "0!"
    assert (result.id, result.model, result.created) == ("inf_1", "m", 3)
    assert result.usage == Usage(11, 8, 2)
    assert result.usage.total_tokens == 19


def test_an_error_keeps_its_code() -> None:
    end = Finish(7, "error", Usage(), Timings(), error=ErrorInfo("SERVICE_UNAVAILABLE", "Unloaded."))
    with pytest.raises(errors.ServiceUnavailable, match="Unloaded"):
        Collector(Request(model="m", prompts=[])).add(0, end)


def test_total_usage_of_nothing() -> None:
    assert total_usage([], 1) == Usage()


async def test_an_embedding_job_keeps_the_order_of_the_inputs() -> None:
    request = EmbeddingRequest(model="m", inputs=[TextPrompt("a"), TextPrompt("b")])
    job = EmbeddingJob(request, [7, 8], lambda ids: None)
    for sequence_id in (8, 7):
        job.feed(Finish(sequence_id, "stop", Usage(3), Timings(), embedding=bytes([sequence_id])))
    embeddings = await job.result()
    assert embeddings.vectors == [b"\7", b"\10"]
    assert embeddings.usage == Usage(6)


async def test_an_embedding_that_is_cut_off_may_be_asked_for_again() -> None:
    job = EmbeddingJob(EmbeddingRequest(model="m", inputs=[TextPrompt("a")]), [7], lambda ids: None)
    job.feed(finish(7, "cancelled"))
    with pytest.raises(errors.ServiceUnavailable):
        await job.result()


# ---- streams --------------------------------------------------------------------------------------------------------


def test_events_reach_their_stream_and_ended_ones_are_forgotten() -> None:
    streams = Streams()
    one, _ = make(1, (1,))
    two, _ = make(1, (2,))
    streams.add(one)
    streams.add(two)
    streams.feed([delta(1, "a"), delta(2, "b"), finish(1)])
    assert one.take() == [(0, delta(1, "a")), (0, finish(1))]
    assert two.take() == [(0, delta(2, "b"))]
    assert len(streams) == 1


def test_a_sequence_may_speak_before_its_stream_is_known() -> None:
    streams = Streams()
    generation, _ = make()
    with streams.expect():
        streams.feed([delta(7, "a"), finish(7)])
        streams.add(generation)
    assert generation.take() == [(0, delta(7, "a")), (0, finish(7))]
    assert len(streams) == 0


def test_events_that_nobody_expects_are_not_kept() -> None:
    streams = Streams()
    streams.feed([delta(7, "a")])
    with streams.expect():
        streams.feed([delta(8, "b")])
    with streams.expect():
        for sequence_id in (7, 8):
            generation, _ = make(1, (sequence_id,))
            streams.add(generation)
            assert not generation.has_events


def test_fail_all_ends_each_stream() -> None:
    streams = Streams()
    generation, _ = make(2, (7, 8))
    streams.add(generation)
    streams.fail_all(LOST)
    assert [event.reason for _, event in generation.take()] == ["error", "error"]  # type: ignore[union-attr]
    assert len(streams) == 0


async def test_what_is_accepted_after_the_caller_left_is_cancelled() -> None:
    generation, cancelled = make()
    accepted = asyncio.Event()

    async def accept() -> Generation:
        await accepted.wait()
        return generation

    task = asyncio.create_task(or_cancel(accept()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == []
    accepted.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert cancelled == [[7]]
