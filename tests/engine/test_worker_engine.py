"""The worker process and the pool, on the real engine."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inferno import _core, errors
from inferno.engine.estimate import estimate_memory
from inferno.engine.worker import WorkerEngine
from inferno.models.pool import ModelPool
from inferno.models.registry import Registry
from inferno.request import ChatPrompt, Delta, EmbeddingRequest, Finish, Message, Request, TextPrompt

pytestmark = pytest.mark.anyio

OPTIONS = {"context_size": 256, "parallel": 4}


@contextlib.asynccontextmanager
async def worker(path: Path, **options: Any) -> AsyncIterator[WorkerEngine]:
    async def no_delay(seconds: float) -> None:
        # A restart follows at once; pings wait as ever.
        await asyncio.sleep(seconds if seconds >= 5 else 0)

    engine = await WorkerEngine.start(str(path), OPTIONS | options, sleep=no_delay)
    try:
        yield engine
    finally:
        await engine.close()


def request(prompt: str, **sampling: Any) -> Request:
    return Request(model="m", prompts=[TextPrompt(prompt)], sampling={"max_tokens": 20, "temperature": 0} | sampling)


def long_request() -> Request:
    """A text that the real model is busy with for ten seconds and more: the tiny one ends 4000 tokens in 20 ms."""
    return request("Once", max_tokens=8000, ignore_eos=True)


async def text(engine: WorkerEngine, prompt: str, **sampling: Any) -> str:
    return (await (await engine.submit(request(prompt, **sampling))).result()).text


async def test_the_capital_of_france(smollm2: Path) -> None:
    async with worker(smollm2) as engine:
        assert (await text(engine, "The capital of France is", max_tokens=8)).startswith(" Paris")
        generation = await engine.submit(
            Request(model="m", prompts=[ChatPrompt([Message("user", "Hello!")])], sampling={"max_tokens": 8})
        )
        assert (await generation.result()).usage.completion_tokens > 0


async def test_pieces_add_up_to_the_text(tiny_model: Path) -> None:
    async with worker(tiny_model) as engine:
        for sampling in ({"temperature": 0}, {"temperature": 1, "seed": 3}):
            pieces = [
                event.text
                async for _, event in await engine.submit(request("Once", **sampling))
                if isinstance(event, Delta)
            ]
            assert "".join(pieces) == await text(engine, "Once", **sampling)


async def test_many_requests_at_once(tiny_model: Path) -> None:
    async with worker(tiny_model) as engine:
        expected = await text(engine, "Once")
        assert await asyncio.gather(*(text(engine, "Once") for _ in range(30))) == [expected] * 30
        stats = await engine.stats()
        assert (stats.running, stats.waiting) == (0, 0)
        assert 0 < stats.completion_tokens_total <= 31 * 20
        assert stats.memory_bytes == engine.memory_bytes > 0


async def test_a_kill_fails_its_stream_only_and_the_worker_comes_back(smollm2: Path, tiny_model: Path) -> None:
    async with worker(smollm2, context_size=8192, parallel=1) as engine, worker(tiny_model) as other:
        expected = await text(engine, "Once")
        unharmed = asyncio.create_task(text(other, "Once", max_tokens=200, ignore_eos=True))
        generation = await engine.submit(long_request())
        events = generation.__aiter__()
        await anext(events)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        *_, (_, end) = [item async for item in events]
        assert isinstance(end, Finish)
        assert end.reason == "error"
        assert end.error is not None
        assert end.error.code == "INFERENCE_FAILED"
        assert await unharmed
        while engine.state != "ready":
            await asyncio.sleep(0.01)  # paces a wait for another process
        assert engine.restarts == 1
        assert await text(engine, "Once") == expected


async def test_closing_with_grace_lets_texts_end(tiny_model: Path) -> None:
    engine = await WorkerEngine.start(str(tiny_model), OPTIONS)
    generation = await engine.submit(request("Once", max_tokens=50, ignore_eos=True))
    await engine.close(grace_s=30)
    result = await generation.result()
    assert result.choices[0].finish_reason == "length"
    assert result.usage.completion_tokens == 50


async def test_closing_without_grace_cancels(smollm2: Path) -> None:
    engine = await WorkerEngine.start(str(smollm2), OPTIONS | {"context_size": 8192, "parallel": 1})
    generation = await engine.submit(long_request())
    await anext(generation.__aiter__())
    await engine.close()
    *_, (_, end) = generation.take()
    assert isinstance(end, Finish)
    assert end.reason == "cancelled"


async def test_cancel_frees_the_slot(smollm2: Path) -> None:
    async with worker(smollm2, context_size=8192, parallel=1) as engine:
        long = await engine.submit(long_request())
        await anext(long.__aiter__())
        waiting = asyncio.create_task(text(engine, "a", max_tokens=1))
        long.cancel()
        await waiting
        *_, (_, end) = long.take()
        assert isinstance(end, Finish)
        assert end.reason == "cancelled"


async def test_secrets_stay_behind(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERNO_API_KEY", "canary-in-the-mine")
    async with worker(tiny_model) as engine:
        assert b"canary-in-the-mine" not in Path(f"/proc/{engine.pid}/environ").read_bytes()
        assert b"canary-in-the-mine" not in Path(f"/proc/{engine.pid}/cmdline").read_bytes()


async def test_vectors_cross_the_border_whole(embed_model: Path) -> None:
    async with worker(embed_model) as engine:
        inputs = [TextPrompt(f"text {i}") for i in range(300)]
        embeddings = await engine.embed(EmbeddingRequest(model="m", inputs=inputs))  # type: ignore[arg-type]
        assert [len(vector) for vector in embeddings.vectors] == [384 * 4] * 300


async def test_what_a_model_would_take(tiny_model: Path, tmp_path: Path) -> None:
    small = await estimate_memory(tiny_model, _core.validate_engine_options({"context_size": 256}))
    large = await estimate_memory(tiny_model, _core.validate_engine_options({"context_size": 4096}))
    assert 0 < small["total_bytes"] < large["total_bytes"]
    async with worker(tiny_model, parallel=8) as engine:
        assert engine.memory_bytes == pytest.approx(small["total_bytes"], rel=0.3)
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(errors.InvalidRequest):
        await estimate_memory(tmp_path / "x.gguf", {})


@pytest.mark.acceptance("I5", "M4")
async def test_twenty_at_once_share_one_load(tiny_model: Path) -> None:
    settings: Any = SimpleNamespace(
        engine=_core.validate_engine_options(OPTIONS),
        models=SimpleNamespace(autoload=True, max_loaded=0, memory_budget_bytes=0, preload=["tiny"]),
        server=SimpleNamespace(drain_s=30.0),
    )
    pool = ModelPool(Registry(tiny_model.parent), settings)

    async def answer() -> tuple[str, Any]:
        async with pool.lease("tiny") as lease:
            engine: Any = lease.engine
            return await text(engine, "Once"), engine.pid

    try:
        answers = await asyncio.gather(*(answer() for _ in range(20)))
        assert len(set(answers)) == 1
        await pool.ready()
        await pool.load("tiny", {"context_size": 128})
        assert pool.statuses()["tiny"].context_size == 128
        assert (await answer())[1] != answers[0][1]
        await pool.unload("tiny")
        with pytest.raises(errors.ModelNotLoaded):
            await pool.unload("tiny")
    finally:
        await pool.close(0)
    assert not Path(f"/proc/{answers[0][1]}").exists()
