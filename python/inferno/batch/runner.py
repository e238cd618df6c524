"""Works off batches: as many items at once as the engine has room for, below everything that somebody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection

from inferno import errors
from inferno.batch import jobs
from inferno.batch.jobs import Batch, Claim, Outcome
from inferno.models.pool import ModelPool
from inferno.request import Request, Result, TextPrompt, new_id
from inferno.store.database import LAST_WRITE_S, RETRY_S, Database
from inferno.telemetry.observation import Observation

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Requests that somebody waits for have priority 0.
PRIORITY = -100
#: An item may wait long for its turn: others go first.
_ITEM_TIMEOUT_S = 6 * 3600.0
#: Items are claimed when this part of the window is free: a transaction for each would cost more than it gains.
_REFILL = 8
#: How often to look for work that other servers, or none, announced.
_LOOK_S = 5.0
#: How long to leave a model alone that is busy, loading or out of memory; doubles as long as it stays so.
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
#: Errors that say nothing about the item: it gets another turn.
_LATER = (errors.ServiceUnavailable, errors.ModelNotLoaded)
#: Errors that say that no item of this model will ever run.
_NEVER = (errors.ModelNotFound,)

Observe: TypeAlias = Callable[[Request, str], AbstractContextManager[Observation]]
Render: TypeAlias = Callable[[Result, int], Mapping[str, Any]]
OnEnded: TypeAlias = Callable[[Connection, Batch], None]


class BatchRunner:
    """One for a server. `run` is to be kept running; what it held when it ended is put back and taken up again."""

    def __init__(
        self,
        database: Database,
        pool: ModelPool,
        *,
        observe: Observe,
        render: Render,
        salt_of: Callable[[str], int],
        on_ended: OnEnded,
        announced: Callable[[], None],
        retention_s: float,
    ) -> None:
        """`observe` is entered around each item; `render` makes what is kept of a result, which took so many
        milliseconds; `on_ended` is called in the transaction that ends a batch, and `announced` once that stands."""
        self._database = database
        self._pool = pool
        self._observe = observe
        self._render = render
        self._salt_of = salt_of
        self._on_ended = on_ended
        self._announced = announced
        self._retention_s = retention_s
        self._news = asyncio.Event()
        self._queues: dict[str, asyncio.Task[None]] = {}
        self._held: dict[asyncio.Task[bool], Claim] = {}
        self._outcomes: list[Outcome] = []
        self._to_write = asyncio.Event()

    def wake(self) -> None:
        """There is a new batch."""
        self._news.set()

    def stop_batch(self, batch_id: str) -> None:
        """Leave off items of a batch that was cancelled; the database has ended them already."""
        for task, claim in self._held.items():
            if claim.batch_id == batch_id:
                task.cancel()

    async def run(self) -> None:
        """Never returns by itself. On the way out items in work are given back, their attempt not counted."""
        recovered = await self._write(lambda c: jobs.recover(c, alone=self._database.is_sqlite))
        if recovered:
            log.info("%d batch items were in work when the server last ended; they are done again", recovered)
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._write_outcomes()), group.create_task(self._keep_house())]
            try:
                await self._watch()
            finally:
                for helper in helpers:
                    helper.cancel()
                await self._give_back()

    async def _watch(self) -> None:
        """Keep one queue at work for each model that items wait for."""
        while True:
            self._news.clear()
            for model in await self._write(jobs.waiting_models):
                if model not in self._queues:
                    task = self._queues[model] = asyncio.create_task(self._work_off(model))
                    task.add_done_callback(functools.partial(self._queue_ended, model))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_S)

    def _queue_ended(self, model: str, task: asyncio.Task[None]) -> None:
        del self._queues[model]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the queue of model %r failed; it is looked at again", model, exc_info=error)

    async def _keep_house(self) -> None:
        """Renew what is held, take over what nobody renews, forget what is old."""
        while True:
            await asyncio.sleep(jobs.LEASE_S / 4)
            held, forget_before = list(self._held.values()), time.time() - self._retention_s

            def tidy(connection: Connection, held: list[Claim] = held, before: float = forget_before) -> int:
                jobs.renew(connection, held)
                jobs.forget(connection, before)
                return jobs.recover(connection, alone=False)

            if await self._write(tidy):
                self.wake()

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """In a transaction, tried until the database takes it: what is here stays here meanwhile."""
        while True:
            try:
                return await self._database.write(work)
            except errors.ServiceUnavailable as error:
                log.warning("batches wait: %s", error.message)
                await asyncio.sleep(RETRY_S)

    # ---- one model's queue ----

    async def _work_off(self, model: str) -> None:
        """Until nothing waits for the model."""
        running: set[asyncio.Task[bool]] = set()
        pause = _PAUSE_S
        try:
            while True:
                running |= {self._start(claim) for claim in await self._more(model, len(running))}
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                if all(map(_went_well, done)):
                    pause = _PAUSE_S
                    continue
                if running:
                    await asyncio.wait(running)  # look at it from the beginning
                    running = set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _more(self, model: str, running: int) -> list[Claim]:
        """What to begin beside so many items. Those that were cut short before run alone: if one of them takes the
        worker down again, it is clear which."""
        if not running and (suspects := await self._claim(model, 1, suspects=True)):
            return suspects
        window = self._window(model)
        enough = running > window - max(1, window // _REFILL)
        return [] if enough else await self._claim(model, window - running)

    async def _claim(self, model: str, limit: int, *, suspects: bool = False) -> list[Claim]:
        return await self._write(lambda connection: jobs.claim(connection, model, limit, suspects=suspects))

    def _window(self, model: str) -> int:
        """Items at once: what the engine computes together, and as many that wait for its slots, for texts of one
        length end together. Half the queue is left to others."""
        status = self._pool.statuses().get(model)
        options = {} if status is None else status.options
        parallel, queue_size = int(options.get("parallel", 1)), int(options.get("queue_size", 512))
        return parallel + min(parallel + 4, queue_size // 2)

    def _start(self, claim: Claim) -> asyncio.Task[bool]:
        task = asyncio.create_task(self._work_on(claim))
        self._held[task] = claim
        task.add_done_callback(self._held.pop)
        return task

    # ---- one item ----

    async def _work_on(self, claim: Claim) -> bool:
        """Turn a claim into an outcome. False: something is wrong with the model, not with the item."""
        try:
            began = time.perf_counter()
            result = await self._generate(claim)
            elapsed_ms = round((time.perf_counter() - began) * 1000)
            self._put(Outcome(claim=claim, state="completed", result=self._render(result, elapsed_ms)))
        except _LATER:
            self._put(Outcome(claim=claim, state="queued", counted=False))
            return False
        except _NEVER as error:
            await self._fail_model(claim.model, error)
        except errors.InferenceFailed as error:
            again = claim.attempts < jobs.MAX_ATTEMPTS
            self._put(Outcome(claim=claim, state="queued") if again else _failed(claim, error))
            return False
        except errors.InfernoError as error:
            self._put(_failed(claim, error))
        except Exception:
            log.exception("a batch item failed unexpectedly")
            self._put(_failed(claim, errors.InternalError("Something went wrong inside the server.")))
        return True

    async def _generate(self, claim: Claim) -> Result:
        request = Request(
            model=claim.model,
            prompts=[TextPrompt(claim.prompt)],
            sampling=dict(claim.sampling),
            id=new_id("inf"),
            priority=PRIORITY,
            timeout_s=_ITEM_TIMEOUT_S,
            cache_salt=self._salt_of(claim.user_id),
        )
        with self._observe(request, claim.user_id) as observed:
            async with self._pool.lease(claim.model) as lease:
                observed.admitted()
                generation = await lease.engine.submit(request)
                result = await generation.result()
            if result.choices[0].finish_reason == "cancelled":
                raise errors.ServiceUnavailable("The model was unloaded.")
            for choice in result.choices:
                observed.sequence(choice.timings, choice.usage, choice.finish_reason)
            observed.usage(result.usage)
        return result

    async def _fail_model(self, model: str, error: errors.InfernoError) -> None:
        await self._write_and_tell(lambda connection: jobs.fail_model(connection, model, error))

    # ---- outcomes ----

    def _put(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._to_write.set()

    async def _write_outcomes(self) -> None:
        """While one transaction is under way others gather for the next."""
        while True:
            await self._to_write.wait()
            await self._flush()

    async def _flush(self) -> None:
        outcomes = list(self._outcomes)
        await self._write_and_tell(lambda connection: jobs.record(connection, outcomes))
        del self._outcomes[: len(outcomes)]
        if not self._outcomes:
            self._to_write.clear()
        if any(outcome.state == "queued" for outcome in outcomes):
            self.wake()

    async def _write_and_tell(self, work: Callable[[Connection], list[Batch]]) -> None:
        """`work` returns the batches that it ended."""

        def write(connection: Connection) -> int:
            ended = work(connection)
            for batch in ended:
                self._on_ended(connection, batch)
            return len(ended)

        if await self._write(write):
            self._announced()

    async def _give_back(self) -> None:
        held = [Outcome(claim=claim, state="queued", counted=False) for claim in self._held.values()]
        ending = [*self._queues.values(), *self._held]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._outcomes.extend(held)
        if self._outcomes:
            await self._flush_in_time()

    async def _flush_in_time(self) -> None:
        """A database that is away does not hold up the end: to it this server is one that was killed."""
        try:
            async with asyncio.timeout(LAST_WRITE_S):
                await self._flush()
        except TimeoutError:
            log.warning("what became of %d batch items is not written down", len(self._outcomes))


def _went_well(task: asyncio.Task[bool]) -> bool:
    """One that was cancelled says nothing about the model."""
    return task.cancelled() or task.result()


def _failed(claim: Claim, error: errors.InfernoError) -> Outcome:
    shown = {"code": error.code, "message": error.message, "details": error.details}
    return Outcome(claim=claim, state="failed", result={"error": shown})
