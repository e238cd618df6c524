"""The models in memory: loads on demand, shares one load among all who ask, makes room, never evicts a busy model."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from inferno import _core, errors
from inferno.config import Settings
from inferno.engine.estimate import estimate_memory
from inferno.engine.protocol import Engine
from inferno.engine.worker import WorkerEngine
from inferno.models.registry import ModelEntry, Registry
from inferno.request import EngineStats

State = Literal["unloaded", "loading", "ready", "restarting", "failed", "closed"]
EngineFactory = Callable[[str, Mapping[str, Any]], Awaitable[Engine]]
Estimate = Callable[[Path, Mapping[str, Any]], Awaitable[dict[str, int]]]


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    model_id: str
    memory_bytes: int
    load_time_ms: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool knows of one model that is, or is becoming, loaded."""

    state: State
    context_size: int = 0
    memory_bytes: int = 0
    restarts: int = 0


class Lease(msgspec.Struct, frozen=True):
    """The right to use a loaded engine; while it is held the model is not unloaded."""

    engine: Engine
    entry: ModelEntry


class _Loaded:
    def __init__(self, entry: ModelEntry, engine: Engine, options: dict[str, Any], load_time_ms: int) -> None:
        self.entry = entry
        self.engine = engine
        self.options = options
        self.load_time_ms = load_time_ms
        self.leases = 0
        self.last_use = 0.0

    @property
    def state(self) -> State:
        return getattr(self.engine, "state", "ready")


async def start_worker(path: str, options: Mapping[str, Any]) -> Engine:
    return await WorkerEngine.start(path, options)


class ModelPool:
    """All methods run on one event loop."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        *,
        start_engine: EngineFactory = start_worker,
        estimate: Estimate = estimate_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._start_engine = start_engine
        self._estimate = estimate
        self._clock = clock
        self._loaded: dict[str, _Loaded] = {}
        self._loading: dict[str, asyncio.Task[_Loaded]] = {}
        self._making_room = asyncio.Lock()
        self._closing = False

    async def start(self) -> None:
        """Load the models that the settings want in memory from the start. Raises what loading raises."""
        for model_id in self._settings.models.preload:
            await self.load(model_id)

    @contextlib.asynccontextmanager
    async def lease(self, model_id: str) -> AsyncIterator[Lease]:
        """A loaded model, loading it first when that is allowed.

        Raises ModelNotFound, ModelNotLoaded (autoload is off), ServiceUnavailable (no memory, shutting down).
        """
        loaded = await self._get(model_id)
        loaded.leases += 1
        try:
            yield Lease(loaded.engine, loaded.entry)
        finally:
            loaded.leases -= 1
            loaded.last_use = self._clock()

    async def load(self, model_id: str, options: Mapping[str, Any] | None = None) -> LoadReport:
        """Load with `options` over the configured ones. With other options than now, the model is reloaded."""
        entry = self._registry.get(model_id)
        wanted = self._options(options or {})
        loaded = self._loaded.get(model_id)
        if loaded is not None and (options or {}) and loaded.options != wanted:
            await self.unload(model_id)
        loaded = await self._load(entry, wanted)
        return LoadReport(model_id=model_id, memory_bytes=loaded.engine.memory_bytes, load_time_ms=loaded.load_time_ms)

    async def unload(self, model_id: str) -> None:
        """Let running requests finish (for the drain time), then free the model. Raises ModelNotLoaded."""
        self._registry.get(model_id)
        loaded = self._loaded.pop(model_id, None)
        if loaded is None:
            raise errors.ModelNotLoaded(f"Model '{model_id}' is not loaded")
        await loaded.engine.close(self._settings.server.drain_s)

    def statuses(self) -> dict[str, Status]:
        result = {model_id: Status(state="loading") for model_id in self._loading}
        for model_id, loaded in self._loaded.items():
            result[model_id] = Status(
                state=loaded.state,
                context_size=loaded.engine.context_size,
                memory_bytes=loaded.engine.memory_bytes,
                restarts=getattr(loaded.engine, "restarts", 0),
            )
        return result

    async def stats(self) -> dict[str, EngineStats]:
        """Of every model whose engine answers."""
        result = {}
        for model_id, loaded in list(self._loaded.items()):
            with contextlib.suppress(errors.InfernoError):
                result[model_id] = await loaded.engine.stats()
        return result

    async def ready(self) -> None:
        """A round trip through every loaded engine. Raises ServiceUnavailable when one does not answer."""
        if self._closing:
            raise errors.ServiceUnavailable("The server is shutting down.")
        for model_id, loaded in list(self._loaded.items()):
            try:
                await asyncio.wait_for(loaded.engine.stats(), 2.0)
            except (errors.InfernoError, TimeoutError):
                raise errors.ServiceUnavailable(f"Model '{model_id}' is {loaded.state}.") from None

    async def close(self, grace_s: float) -> None:
        """Refuse new work, drain and free everything."""
        self._closing = True
        for task in list(self._loading.values()):
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        await asyncio.gather(*(loaded.engine.close(grace_s) for loaded in self._loaded.values()))
        self._loaded.clear()

    def begin_closing(self) -> None:
        """From now on nothing new is leased; what is leased goes on."""
        self._closing = True

    # ---- inside -------------------------------------------------------------------------------------------------

    def _options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return _core.validate_engine_options({**self._settings.engine, **options})

    async def _get(self, model_id: str) -> _Loaded:
        if self._closing:
            raise errors.ServiceUnavailable("The server is shutting down.", retry_after=5)
        loaded = self._loaded.get(model_id)
        if loaded is not None:
            if loaded.state == "failed":
                raise errors.ServiceUnavailable(f"Model '{model_id}' has failed repeatedly; load it again.")
            return loaded
        entry = self._registry.get(model_id)
        if not self._settings.models.autoload and model_id not in self._loading:
            raise errors.ModelNotLoaded(f"Model '{model_id}' is not loaded")
        return await self._load(entry, self._options({}))

    async def _load(self, entry: ModelEntry, options: dict[str, Any]) -> _Loaded:
        """One load for all who ask at the same time; a waiter that gives up does not stop it for the others."""
        loaded = self._loaded.get(entry.id)
        if loaded is not None and loaded.state != "failed":
            return loaded
        task = self._loading.get(entry.id)
        if task is None:
            task = asyncio.create_task(self._load_now(entry, options))
            self._loading[entry.id] = task
            task.add_done_callback(lambda _: self._loading.pop(entry.id, None))
        return await asyncio.shield(task)

    async def _load_now(self, entry: ModelEntry, options: dict[str, Any]) -> _Loaded:
        failed = self._loaded.pop(entry.id, None)
        if failed is not None:
            await failed.engine.close()
        async with self._making_room:
            await self._make_room(entry, options)
            start = self._clock()
            engine = await self._start_engine(str(entry.path), options)
            loaded = _Loaded(entry, engine, options, round((self._clock() - start) * 1000))
            loaded.last_use = self._clock()
            self._loaded[entry.id] = loaded
        return loaded

    async def _make_room(self, entry: ModelEntry, options: Mapping[str, Any]) -> None:
        needed = (await self._estimate(entry.path, options))["total_bytes"]
        budget = self._settings.models.memory_budget_bytes or physical_memory() * 9 // 10
        if needed > budget:
            raise self._no_memory(entry.id, needed, budget)
        limit = self._settings.models.max_loaded
        while (limit and len(self._loaded) >= limit) or self._used() + needed > budget:
            idle = [loaded for loaded in self._loaded.values() if loaded.leases == 0]
            if not idle:
                raise self._no_memory(entry.id, needed, max(0, budget - self._used()))
            oldest = min(idle, key=lambda loaded: loaded.last_use)
            del self._loaded[oldest.entry.id]
            await oldest.engine.close()

    def _used(self) -> int:
        return sum(loaded.engine.memory_bytes for loaded in self._loaded.values())

    def _no_memory(self, model_id: str, needed: int, available: int) -> errors.ServiceUnavailable:
        return errors.ServiceUnavailable(
            f"Model '{model_id}' needs {needed >> 20} MiB; {available >> 20} MiB can be had.",
            needed_bytes=needed,
            available_bytes=available,
            retry_after=10,
        )


def physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
