import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inferno import _core, errors
from inferno.engine.protocol import EngineState
from inferno.models import pool as pool_module
from inferno.models.pool import ModelPool
from inferno.models.registry import ModelEntry
from inferno.request import EngineStats, Placement

pytestmark = pytest.mark.anyio

SIZES = {"small": 10, "new": 25, "medium": 30, "large": 60, "other": 60, "huge": 1000}


@pytest.fixture(autouse=True)
def no_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module.preflight, "check", lambda path: None)


class FakeRegistry:
    def get(self, model_id: str) -> ModelEntry:
        if model_id not in SIZES:
            raise errors.ModelNotFound(f"Model '{model_id}' not found", available_models=sorted(SIZES))
        info: Any = None
        return ModelEntry(id=model_id, name=model_id, path=Path(model_id), size_bytes=1, created=1, info=info)


class FakeEngine:
    context_size = 64

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.memory_bytes = SIZES[path]
        self.placement = Placement(host_bytes=SIZES[path])
        self.options = dict(options)
        self.state: EngineState = "ready"
        self.healthy = True
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def stats(self) -> EngineStats:
        return EngineStats(memory_bytes=self.memory_bytes)

    async def close(self, grace_s: float = 0.0) -> None:
        self.closing.set()
        await self.may_close.wait()
        self.state = "closed"


class Factory:
    """Starts engines when told to."""

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.asked = asyncio.Event()
        self.error: Exception | None = None
        self.started: list[FakeEngine] = []

    async def __call__(self, path: str, options: Mapping[str, Any], progress: Any) -> FakeEngine:
        self.asked.set()
        progress(0.5)
        await self.may_start.wait()
        if self.error is not None:
            raise self.error
        self.started.append(FakeEngine(path, options))
        return self.started[-1]

    @property
    def alive(self) -> int:
        return sum(engine.memory_bytes for engine in self.started if engine.state != "closed")


class World:
    """A pool of 100 bytes over fakes. `drain_s` of 0: a lease that is held does not hold up an unload."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        self.factory = Factory()
        self.estimates: list[str] = []
        engine = {row["name"]: row["default"] for row in _core.engine_fields()}
        models = {"autoload": True, "max_loaded": 0, "memory_budget_bytes": 100, "preload": []}
        server = {"drain_s": settings.pop("drain_s", 60.0)}
        self.pool = ModelPool(
            FakeRegistry(),  # type: ignore[arg-type]
            SimpleNamespace(  # type: ignore[arg-type]
                engine=engine, models=SimpleNamespace(**(models | settings)), server=SimpleNamespace(**server)
            ),
            engine_factory=self.factory,  # type: ignore[arg-type]
            estimate=self.estimate,
            clock=self.clock,
        )

    def clock(self) -> float:
        self.now += 1.0
        return self.now

    async def estimate(self, path: Path, options: Mapping[str, Any]) -> Mapping[str, int]:
        self.estimates.append(str(path))
        return {"host_bytes": SIZES[str(path)]}

    async def use(self, model_id: str) -> FakeEngine:
        async with self.pool.lease(model_id) as lease:
            engine: Any = lease.engine
            assert engine.state == "ready"
            assert lease.entry.id == model_id
            return engine

    @property
    def loaded(self) -> set[str]:
        return set(self.pool.statuses())


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pool does in threads takes a turn of the loop, so that `settle` sees the end of it."""

    async def to_thread(work: Callable[..., Any], *given: Any) -> Any:
        await asyncio.sleep(0)
        return work(*given)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)


async def settle() -> None:
    """Let every task run until it waits for something that only the test can give."""
    for _ in range(100):
        await asyncio.sleep(0)


# ---- loading on demand ----------------------------------------------------------------------------------------------


@pytest.mark.acceptance("I5")
async def test_a_model_is_loaded_by_its_first_request_and_stays() -> None:
    world = World()
    assert await world.use("small") is await world.use("small")
    assert len(world.factory.started) == 1


@pytest.mark.acceptance("I5")
async def test_without_autoload_a_model_must_be_loaded_first() -> None:
    world = World(autoload=False)
    with pytest.raises(errors.ModelNotLoaded):
        await world.use("small")
    await world.pool.load("small")
    await world.use("small")


@pytest.mark.acceptance("M6")
@pytest.mark.parametrize("verb", ["use", "load", "unload"])
async def test_an_unknown_model(verb: str) -> None:
    world = World(autoload=False)
    with pytest.raises(errors.ModelNotFound) as caught:
        await (world.use if verb == "use" else getattr(world.pool, verb))("nope")
    assert caught.value.details["available_models"] == sorted(SIZES)


@pytest.mark.acceptance("I5", "M4")
async def test_many_at_once_share_one_load() -> None:
    world = World()
    world.factory.may_start.clear()
    waiting = [asyncio.create_task(world.use("small")) for _ in range(10)]
    waiting += [asyncio.create_task(world.pool.load("small")) for _ in range(10)]  # type: ignore[arg-type]
    await settle()
    assert world.pool.statuses()["small"].state == "loading"
    assert world.pool.statuses()["small"].progress == 0.5
    world.factory.may_start.set()
    outcomes = await asyncio.gather(*waiting)
    assert len(set(map(id, outcomes[:10]))) == 1
    assert all(report == outcomes[10] for report in outcomes[10:])
    assert len(world.factory.started) == 1


async def test_all_who_wait_get_the_same_error_and_the_next_one_tries_again() -> None:
    world = World()
    world.factory.error = errors.InvalidRequest("Not a model.", field="model")
    outcomes = await asyncio.gather(*(world.use("small") for _ in range(5)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["Not a model."] * 5
    assert world.loaded == set()
    world.factory.error = None
    await world.use("small")


async def test_one_who_stops_waiting_does_not_stop_the_load() -> None:
    world = World()
    world.factory.may_start.clear()
    first, second = (asyncio.create_task(world.use("small")) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    world.factory.may_start.set()
    await second
    assert first.cancelled()
    assert world.pool.statuses()["small"].leases == 0


async def test_a_load_that_nobody_waits_for_any_more_completes() -> None:
    world = World()
    world.factory.may_start.clear()
    only = asyncio.create_task(world.use("small"))
    await settle()
    only.cancel()
    await settle()
    world.factory.may_start.set()
    await settle()
    assert world.pool.statuses()["small"].state == "ready"
    assert world.pool.statuses()["small"].leases == 0


@pytest.mark.acceptance("S6")
async def test_the_file_is_checked_before_anything_else_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise errors.InvalidRequest("Truncated.", field="model")

    monkeypatch.setattr(pool_module.preflight, "check", refuse)
    world = World()
    with pytest.raises(errors.InvalidRequest, match="Truncated"):
        await world.use("small")
    assert world.estimates == []
    assert world.factory.started == []


# ---- room -----------------------------------------------------------------------------------------------------------


@pytest.mark.acceptance("I5")
async def test_the_least_recently_used_idle_model_makes_room() -> None:
    world = World()
    for model_id in ("small", "medium", "small", "large"):  # 10 + 30 + 60 fill the pool
        await world.use(model_id)
    await world.use("new")
    assert world.loaded == {"small", "large", "new"}
    assert world.factory.alive <= 100


@pytest.mark.acceptance("I5", "X4")
async def test_a_busy_model_is_never_unloaded() -> None:
    world = World()
    async with world.pool.lease("large") as lease:
        with pytest.raises(errors.ServiceUnavailable) as caught:
            await world.use("other")
        assert caught.value.details == {"needed_bytes": 60, "available_bytes": 40, "retry_after": 10}
        assert lease.engine.state == "ready"
    assert world.loaded == {"large"}
    assert len(world.factory.started) == 1


async def test_nothing_is_unloaded_when_it_would_not_help() -> None:
    world = World()
    await world.use("small")
    with pytest.raises(errors.ServiceUnavailable) as caught:
        await world.use("huge")
    assert caught.value.details["needed_bytes"] == 1000
    assert caught.value.details["available_bytes"] == 100
    assert world.loaded == {"small"}


@pytest.mark.acceptance("I5")
async def test_at_most_so_many_models() -> None:
    world = World(max_loaded=1)
    await world.use("small")
    await world.use("medium")
    assert world.loaded == {"medium"}
    async with world.pool.lease("medium"):
        with pytest.raises(errors.ServiceUnavailable, match="1 other models are busy"):
            await world.use("small")


async def test_loads_under_way_count() -> None:
    world = World()
    world.factory.may_start.clear()
    first = asyncio.create_task(world.use("large"))
    await settle()
    with pytest.raises(errors.ServiceUnavailable):
        await world.use("other")
    world.factory.may_start.set()
    await first


async def test_different_models_load_side_by_side() -> None:
    world = World()
    world.factory.may_start.clear()
    tasks = [asyncio.create_task(world.use(model_id)) for model_id in ("small", "medium")]
    await settle()
    assert {status.state for status in world.pool.statuses().values()} == {"loading"}
    world.factory.may_start.set()
    await asyncio.gather(*tasks)


async def test_a_model_that_is_on_its_way_out_is_waited_for() -> None:
    world = World()
    engine = await world.use("large")
    engine.may_close.clear()
    unloading = asyncio.create_task(world.pool.unload("large"))
    await engine.closing.wait()
    loading = asyncio.create_task(world.use("other"))
    await settle()
    assert len(world.factory.started) == 1
    engine.may_close.set()
    await asyncio.gather(unloading, loading)
    assert world.factory.alive == 60


async def test_a_new_model_cannot_be_taken_from_those_who_waited_for_it() -> None:
    world = World()
    load = world.pool._begin(FakeRegistry().get("small"), {})
    complete, idle = load.complete, []

    def watched(slot: Any) -> None:
        complete(slot)
        idle.append(slot.idle)

    load.complete = watched  # type: ignore[method-assign]
    await world.use("small")
    assert idle == [False]
    assert world.pool.statuses()["small"].leases == 0


# ---- loading and unloading by hand ----------------------------------------------------------------------------------


@pytest.mark.acceptance("M4")
async def test_load_reports_and_a_second_one_changes_nothing() -> None:
    world = World()
    first = await world.pool.load("small", {"context_size": 128})
    assert first.model_id == "small"
    assert first.memory_bytes == 10
    assert first.load_time_ms > 0
    assert await world.pool.load("small", {"context_size": 128}) == first
    assert await world.pool.load("small") == first
    assert len(world.factory.started) == 1
    assert world.pool.statuses()["small"].options["context_size"] == 128


@pytest.mark.acceptance("M4")
async def test_other_options_reload_after_the_leases_have_ended() -> None:
    world = World()
    async with world.pool.lease("large") as lease:
        reload = asyncio.create_task(world.pool.load("large", {"context_size": 128}))
        await settle()
        assert len(world.factory.started) == 1
        assert lease.engine.state == "ready"
        meanwhile = asyncio.create_task(world.use("large"))
        await settle()
    await reload
    assert (await meanwhile).options["context_size"] == 128
    assert [engine.state for engine in world.factory.started] == ["closed", "ready"]


async def test_a_load_with_other_options_waits_for_the_one_under_way() -> None:
    world = World()
    world.factory.may_start.clear()
    first = asyncio.create_task(world.pool.load("small", {"context_size": 128}))
    await settle()
    second = asyncio.create_task(world.pool.load("small", {"context_size": 256}))
    await settle()
    world.factory.may_start.set()
    await asyncio.gather(first, second)
    assert [engine.options["context_size"] for engine in world.factory.started] == [128, 256]


@pytest.mark.acceptance("M4")
@pytest.mark.parametrize(
    ("options", "field"),
    [({"context_size": 0}, "context_size"), ({"colour": 1}, "colour"), ({"batch_size": "x"}, "batch_size")],
)
async def test_bad_options_are_refused(options: dict[str, Any], field: str) -> None:
    world = World()
    with pytest.raises(errors.InvalidRequest) as caught:
        await world.pool.load("small", options)
    assert caught.value.field == field


@pytest.mark.acceptance("M5")
async def test_unload_waits_for_leases() -> None:
    world = World()
    async with world.pool.lease("small") as lease:
        unloading = asyncio.create_task(world.pool.unload("small"))
        await settle()
        assert lease.engine.state == "ready"
        assert world.loaded == set()
    await unloading
    assert world.factory.alive == 0


@pytest.mark.acceptance("M5")
async def test_unload_does_not_wait_for_ever() -> None:
    world = World(drain_s=0.0)
    async with world.pool.lease("small") as lease:
        await world.pool.unload("small")
        assert lease.engine.state == "closed"


async def test_requests_during_an_unload_load_the_model_again() -> None:
    world = World()
    async with world.pool.lease("small"):
        unloading = asyncio.create_task(world.pool.unload("small"))
        await settle()
        await world.use("small")
    await unloading
    assert world.loaded == {"small"}


@pytest.mark.acceptance("M5")
async def test_unload_of_what_is_not_loaded() -> None:
    with pytest.raises(errors.ModelNotLoaded):
        await World().pool.unload("small")


async def test_unload_gives_a_load_up() -> None:
    world = World()
    world.factory.may_start.clear()
    waiting = asyncio.create_task(world.use("small"))
    await world.factory.asked.wait()
    await world.pool.unload("small")
    with pytest.raises(errors.ServiceUnavailable):
        await waiting
    assert world.loaded == set()


async def test_a_load_given_up_at_once() -> None:
    world = World()
    load = world.pool._begin(FakeRegistry().get("small"), {})
    await world.pool.unload("small")
    with pytest.raises(errors.ServiceUnavailable):
        await load.slot()
    assert world.loaded == set()


async def test_an_engine_that_failed_for_good_is_loaded_by_hand_only() -> None:
    world = World()
    (await world.use("small")).state = "failed"
    with pytest.raises(errors.ServiceUnavailable, match="load it again"):
        await world.use("small")
    await world.pool.load("small")
    await world.use("small")
    assert len(world.factory.started) == 2


# ---- life -----------------------------------------------------------------------------------------------------------


async def test_preloading_goes_on_after_a_failure_and_tells(caplog: pytest.LogCaptureFixture) -> None:
    world = World(preload=["nope", "small"])
    failures = await world.pool.start()
    assert list(failures) == ["nope"]
    assert isinstance(failures["nope"], errors.ModelNotFound)
    assert "nope" in caplog.text
    assert world.loaded == {"small"}


async def test_readiness_is_an_answer_of_every_engine() -> None:
    world = World()
    await world.pool.ready()
    engine = await world.use("small")
    await world.use("medium")
    await world.pool.ready()
    engine.healthy = False
    with pytest.raises(errors.ServiceUnavailable) as caught:
        await world.pool.ready()
    assert caught.value.details["models"] == ["small"]


async def test_stats_leave_out_an_engine_that_does_not_answer() -> None:
    world = World()
    engine = await world.use("small")
    await world.use("medium")

    async def refuse() -> EngineStats:
        raise errors.ServiceUnavailable("Restarting.")

    engine.stats = refuse  # type: ignore[method-assign]
    assert await world.pool.stats() == {"medium": EngineStats(memory_bytes=30)}


async def test_closing_waits_for_leases_and_refuses_new_ones() -> None:
    world = World()
    async with world.pool.lease("small"):
        closing = asyncio.create_task(world.pool.close(60.0))
        await settle()
        for verb in (world.use, world.pool.load):
            with pytest.raises(errors.ServiceUnavailable, match="shutting down"):
                await verb("small")
        with pytest.raises(errors.ServiceUnavailable):
            await world.pool.ready()
        assert not closing.done()
    await closing
    assert world.factory.alive == 0


async def test_closing_hastens_an_unload_that_is_under_way() -> None:
    world = World()
    async with world.pool.lease("small") as lease:
        unloading = asyncio.create_task(world.pool.unload("small"))
        await settle()
        await world.pool.close(0.0)
        assert lease.engine.state == "closed"
    await unloading


async def test_closing_gives_loads_up() -> None:
    world = World()
    world.factory.may_start.clear()
    waiting = asyncio.create_task(world.use("small"))
    await world.factory.asked.wait()
    await world.pool.close(0.0)
    with pytest.raises(errors.ServiceUnavailable):
        await waiting
    assert world.loaded == set()
