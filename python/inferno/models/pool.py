"""The models in memory: loaded on demand, one load for all who ask, room made by unloading what nobody uses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from inferno import _core, errors
from inferno.config import Settings
from inferno.engine import fitting
from inferno.engine.estimate import estimate_memory
from inferno.engine.protocol import Engine, EngineState
from inferno.engine.worker import WorkerEngine
from inferno.models import preflight
from inferno.models.registry import ModelEntry, Registry
from inferno.request import EngineStats, Placement

log = logging.getLogger(__name__)

ReportProgress: TypeAlias = Callable[[float], object]
EngineFactory: TypeAlias = Callable[[str, Mapping[str, Any], ReportProgress], Awaitable[Engine]]
Estimate: TypeAlias = Callable[[Path, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

_PROBE_S = 2.0


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    model_id: str
    memory_bytes: int
    load_time_ms: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool knows of one model that is loaded or being loaded. `progress` of a load goes from 0 to 1."""

    state: EngineState
    progress: float = 1.0
    context_size: int = 0
    memory_bytes: int = 0
    load_time_ms: int = 0
    leases: int = 0
    restarts: int = 0
    last_error: str | None = None
    options: dict[str, Any] = {}
    placement: Placement = Placement()


class Lease(msgspec.Struct, frozen=True):
    """The right to use a loaded engine; while it is held the model is not unloaded to make room."""

    engine: Engine
    entry: ModelEntry


class ModelPool:
    """All methods run on one event loop.

    A model is in `_loaded` while it can be leased, in `_loading` while a load is under way, in `_retiring` while it
    is drained and closed. A reload is both loaded and loading until the old engine retires.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        *,
        engine_factory: EngineFactory = WorkerEngine.start,
        estimate: Estimate = estimate_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: Called with each load that succeeded.
        self.on_loaded: Callable[[LoadReport], object] = lambda report: None
        self._registry = registry
        self._settings = settings
        self._engine_factory = engine_factory
        self._estimate = estimate
        self._clock = clock
        self._loaded: dict[str, _Slot] = {}
        self._loading: dict[str, _Load] = {}
        self._retiring: dict[_Slot, asyncio.Task[None]] = {}
        self._reserved: dict[str, int] = {}  # bytes that loads under way are going to take
        self._making_room = asyncio.Lock()
        self._closing = False

    # ---- using --------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lease(self, model_id: str) -> AsyncIterator[Lease]:
        """A loaded model, loading it first if need be.

        Raises ModelNotFound, ModelNotLoaded (autoload is off), what loading raises, ServiceUnavailable (shutting
        down, no memory, the engine has failed for good).
        """
        slot = await self._held(model_id)
        try:
            yield Lease(slot.engine, slot.entry)
        finally:
            slot.release(self._clock())

    async def _held(self, model_id: str) -> _Slot:
        """A slot with one lease more, which the caller releases."""
        entry = None
        while True:
            self._check_open()
            if (slot := self._loaded.get(model_id)) is not None:
                if slot.engine.state == "failed":
                    raise errors.ServiceUnavailable(f"Model '{model_id}' failed too often; load it again.")
                slot.hold()
                return slot
            if (load := self._loading.get(model_id)) is not None:
                return await load.held_slot(self._clock)
            if entry is not None:
                if not self._settings.models.autoload:
                    raise errors.ModelNotLoaded(f"Model '{model_id}' is not loaded")
                self._begin(entry, self._options({}))
                continue
            entry = await self._entry(model_id)  # much may have happened meanwhile: look again

    # ---- loading and unloading ----------------------------------------------------------------------------------

    async def start(self) -> dict[str, errors.InfernoError]:
        """Load what the settings want in memory from the start. What could not be loaded is logged and returned."""
        failures = {}
        for model_id in self._settings.models.preload:
            try:
                await self.load(model_id)
            except errors.InfernoError as error:
                log.error("model %r could not be loaded at start: %s", model_id, error.message)
                failures[model_id] = error
        return failures

    async def load(self, model_id: str, options: Mapping[str, Any] | None = None) -> LoadReport:
        """Load with `options` over the configured ones. A loaded model is reloaded when `options` are given and
        differ from its own; requests that come meanwhile wait for the new engine.

        Raises ModelNotFound, InvalidRequest (options, file), ServiceUnavailable (no memory, before any is taken).
        """
        wanted = self._options(options or {})
        entry = await self._entry(model_id)
        while (load := self._loading.get(model_id)) is not None:
            if not options or load.options == wanted:
                return (await load.slot()).report()
            await load.settled()
        self._check_open()
        slot = self._loaded.get(model_id)
        if slot is not None and slot.engine.state != "failed" and (not options or slot.options == wanted):
            return slot.report()
        return (await self._begin(entry, wanted).slot()).report()

    async def unload(self, model_id: str) -> None:
        """Let the model's leases end for up to `server.drain_s` seconds, cancel what still runs, free its memory.
        A load that is under way is given up. Raises ModelNotFound, ModelNotLoaded."""
        load, slot = self._loading.get(model_id), self._loaded.get(model_id)
        if load is None and slot is None:
            await self._entry(model_id)
            raise errors.ModelNotLoaded(f"Model '{model_id}' is not loaded")
        if load is not None:
            await load.give_up()
        if slot is not None:
            await self._retire(slot, self._settings.server.drain_s)

    async def close(self, grace_s: float) -> None:
        """Refuse new leases, let those that are held end for up to `grace_s` seconds, free everything."""
        self.begin_closing()
        for load in list(self._loading.values()):
            await load.give_up()
        await asyncio.gather(*(self._retire(slot, grace_s) for slot in [*self._loaded.values(), *self._retiring]))

    def begin_closing(self) -> None:
        """From now on nothing is leased or loaded; what is leased goes on."""
        self._closing = True

    def give_up_loads(self) -> None:
        """Those that are under way; who waits for one gets ServiceUnavailable."""
        for load in self._loading.values():
            load.cancel()

    # ---- looking ------------------------------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """True once nothing is leased or loaded any more."""
        return self._closing

    def statuses(self) -> dict[str, Status]:
        """By id; models that are neither loaded nor being loaded are absent."""
        loading = {
            model_id: Status(state="loading", progress=load.progress) for model_id, load in self._loading.items()
        }
        return loading | {model_id: slot.status() for model_id, slot in self._loaded.items()}

    async def stats(self) -> dict[str, EngineStats]:
        """Of every model whose engine answers within two seconds."""
        slots = [slot for slot in self._loaded.values() if slot.engine.healthy]
        answers = await asyncio.gather(*(_probe(slot.engine) for slot in slots))
        return {slot.entry.id: stats for slot, stats in zip(slots, answers, strict=True) if stats is not None}

    async def ready(self) -> None:
        """A round trip to every loaded engine. Raises ServiceUnavailable naming the models that do not answer, and
        while the server shuts down."""
        self._check_open()
        answering = await self.stats()
        if silent := [model_id for model_id in self._loaded if model_id not in answering]:
            raise errors.ServiceUnavailable(f"Not ready: {', '.join(sorted(silent))}.", models=silent, retry_after=1)

    # ---- inside: one load ---------------------------------------------------------------------------------------

    def _begin(self, entry: ModelEntry, options: dict[str, Any]) -> _Load:
        load = self._loading[entry.id] = _Load(entry, options)
        load.run(self._carry_out(load), lambda: self._loading.pop(entry.id, None))
        return load

    async def _carry_out(self, load: _Load) -> None:
        entry, options = load.entry, load.options
        await asyncio.to_thread(preflight.check, entry.path)
        memory = await self._estimate(entry.path, options)
        replaced = self._loaded.get(entry.id)
        async with self._making_room:
            await self._make_room(entry.id, memory, replaced)
            self._reserved[entry.id] = memory["host_bytes"]
        try:
            if replaced is not None:
                await self._retire(replaced, self._settings.server.drain_s)
            began = self._clock()
            engine = await self._engine_factory(str(entry.path), options, load.report)
        finally:
            del self._reserved[entry.id]
        slot = _Slot(entry, options, engine, load_time_s=self._clock() - began, now=self._clock())
        self._loaded[entry.id] = slot
        load.complete(slot)
        log.info("model %r loaded: %d MiB in %.1f s", entry.id, engine.memory_bytes >> 20, slot.load_time_s)
        self.on_loaded(slot.report())

    async def _entry(self, model_id: str) -> ModelEntry:
        return await asyncio.to_thread(self._registry.get, model_id)

    def _options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return _core.validate_engine_options({**self._settings.engine, **options})

    def _check_open(self) -> None:
        if self._closing:
            raise errors.ServiceUnavailable("The server is shutting down.", retry_after=5)

    # ---- inside: room -------------------------------------------------------------------------------------------

    async def _make_room(self, model_id: str, memory: Mapping[str, Any], replaced: _Slot | None) -> None:
        """Unload idle models, the least recently used first, until there is room. Unloads nothing when even that
        would not help. `replaced` counts as gone."""
        needed = memory["host_bytes"]
        while not self._fits(needed, [*self._kept(replaced), *self._retiring]):
            idle = sorted((slot for slot in self._kept(replaced) if slot.idle), key=lambda slot: slot.last_use)
            busy = [slot for slot in self._kept(replaced) if not slot.idle]
            if not self._fits(needed, busy):
                raise self._no_room(model_id, memory, busy)
            if self._retiring:
                await asyncio.wait(self._retiring.values(), return_when=asyncio.FIRST_COMPLETED)
            else:
                log.info("unloading idle model %r to make room for %r", idle[0].entry.id, model_id)
                await self._retire(idle[0], 0.0)

    def _kept(self, replaced: _Slot | None) -> list[_Slot]:
        return [slot for slot in self._loaded.values() if slot is not replaced]

    def _fits(self, needed: int, beside: list[_Slot]) -> bool:
        limit = self._settings.models.max_loaded
        count = len(beside) + len(self._reserved)
        return needed <= self._available(beside) and (limit == 0 or count < limit)

    def _available(self, beside: list[_Slot]) -> int:
        budget = self._settings.models.memory_budget_bytes or fitting.physical_memory() * 9 // 10
        return budget - sum(slot.engine.placement.host_bytes for slot in beside) - sum(self._reserved.values())

    def _no_room(self, model_id: str, memory: Mapping[str, Any], busy: list[_Slot]) -> errors.ServiceUnavailable:
        needed, available = memory["host_bytes"], max(0, self._available(busy))
        if needed > available:
            return fitting.no_room(memory, available, model_id)
        message = f"Model '{model_id}' cannot be loaded: {len(busy) + len(self._reserved)} other models are busy."
        return errors.ServiceUnavailable(message, needed_bytes=needed, available_bytes=available, retry_after=10)

    async def _retire(self, slot: _Slot, grace_s: float) -> None:
        """Drain and close, once; a caller that gives up waiting does not stop it, one with less patience hastens it."""
        if self._loaded.get(slot.entry.id) is slot:
            del self._loaded[slot.entry.id]
            task = self._retiring[slot] = asyncio.create_task(slot.drain_and_close(grace_s))
            task.add_done_callback(lambda _: self._retiring.pop(slot, None))
        if (retiring := self._retiring.get(slot)) is not None:
            await asyncio.wait({retiring}, timeout=grace_s)
            slot.abandon()
            await asyncio.shield(retiring)


class _Slot:
    """One loaded model."""

    def __init__(
        self, entry: ModelEntry, options: dict[str, Any], engine: Engine, load_time_s: float, now: float
    ) -> None:
        self.entry = entry
        self.options = options
        self.engine = engine
        self.load_time_s = load_time_s
        self.last_use = now
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def idle(self) -> bool:
        return self._leases == 0

    def hold(self) -> None:
        self._leases += 1
        self._unused.clear()

    def release(self, now: float) -> None:
        self._leases -= 1
        self.last_use = now
        if self.idle:
            self._unused.set()

    def abandon(self) -> None:
        """Who still uses it is waited for no longer."""
        self._unused.set()

    async def drain_and_close(self, grace_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._unused.wait(), grace_s)
        try:
            await self.engine.close()
        except errors.InfernoError as error:
            log.error("model %r did not close cleanly: %s", self.entry.id, error.message)

    def report(self) -> LoadReport:
        return LoadReport(
            model_id=self.entry.id,
            memory_bytes=self.engine.memory_bytes,
            load_time_ms=round(self.load_time_s * 1000),
        )

    def status(self) -> Status:
        return Status(
            state=self.engine.state,
            context_size=self.engine.context_size,
            memory_bytes=self.engine.memory_bytes,
            load_time_ms=round(self.load_time_s * 1000),
            leases=self._leases,
            restarts=getattr(self.engine, "restarts", 0),
            last_error=getattr(self.engine, "last_error", None),
            options=self.options,
            placement=self.engine.placement,
        )


class _Load:
    """One load, shared by all who wait for it. It goes on when they stop waiting."""

    def __init__(self, entry: ModelEntry, options: dict[str, Any]) -> None:
        self.entry = entry
        self.options = options
        self.progress = 0.0
        self._wanted = 0  # leases to hold for waiters as soon as there is a slot
        self._outcome: asyncio.Future[_Slot] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    def report(self, fraction: float) -> None:
        self.progress = fraction

    def run(self, work: Coroutine[Any, Any, None], ended: Callable[[], object]) -> None:
        """`work` calls `complete` or raises."""
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(lambda task: self._settle(task, ended))

    def complete(self, slot: _Slot) -> None:
        """Those who wait for a lease hold the slot from this moment: it cannot be unloaded before they run."""
        for _ in range(self._wanted):
            slot.hold()
        self._outcome.set_result(slot)

    def _settle(self, task: asyncio.Task[None], ended: Callable[[], object]) -> None:
        ended()
        if self._outcome.done():
            return
        if task.cancelled():
            self._outcome.set_exception(errors.ServiceUnavailable("The model is being unloaded.", retry_after=1))
        else:
            self._outcome.set_exception(task.exception() or errors.InternalError("The load ended without a model."))
        self._outcome.exception()  # perhaps nobody waits any more

    async def slot(self) -> _Slot:
        return await asyncio.shield(self._outcome)

    async def held_slot(self, clock: Callable[[], float]) -> _Slot:
        """The new slot with one lease for the caller."""
        self._wanted += 1
        try:
            return await asyncio.shield(self._outcome)
        except asyncio.CancelledError:
            if not self._outcome.done():
                self._wanted -= 1
            elif self._outcome.exception() is None:
                self._outcome.result().release(clock())
            raise

    async def settled(self) -> None:
        await asyncio.wait({self._outcome})

    async def give_up(self) -> None:
        """Stop loading; those who wait get ServiceUnavailable. A load that is complete stays."""
        self.cancel()
        await self.settled()

    def cancel(self) -> None:
        """`give_up` without waiting for it."""
        if self._task is not None:
            self._task.cancel()


async def _probe(engine: Engine) -> EngineStats | None:
    try:
        return await asyncio.wait_for(engine.stats(), _PROBE_S)
    except (errors.InfernoError, TimeoutError):
        return None
