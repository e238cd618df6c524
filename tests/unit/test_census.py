"""Counts of batches: how often the database is asked, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from inferno import errors
from inferno.batch.census import Census
from inferno.batch.jobs import Counts

pytestmark = pytest.mark.anyio
COUNTS = Counts(batches={"processing": 1}, items={"queued": 2})


class SlowDatabase:
    """Answers when `answer` is set."""

    def __init__(self) -> None:
        self.questions = 0
        self.answer = asyncio.Event()
        self.problem: Exception | None = None

    async def read(self, _: object) -> Counts:
        self.questions += 1
        await self.answer.wait()
        if self.problem is not None:
            raise self.problem
        return COUNTS


async def test_one_question_for_all_who_ask_within_a_second() -> None:
    database: Any = SlowDatabase()
    now = [100.0]
    census = Census(database, clock=lambda: now[0])
    database.answer.set()
    assert await asyncio.gather(*(census.counts() for _ in range(5))) == [COUNTS] * 5
    now[0] += 0.9
    assert await census.counts() == COUNTS
    assert database.questions == 1
    now[0] += 0.2
    assert await census.counts() == COUNTS
    assert database.questions == 2


async def test_a_database_that_hangs_is_asked_once() -> None:
    database: Any = SlowDatabase()
    now = [100.0]
    census = Census(database, patience_s=0.01, clock=lambda: now[0])
    for _ in range(3):
        assert await census.counts() is None
        now[0] += 10
    assert database.questions == 1
    census._patience_s = 60.0
    database.answer.set()
    assert await census.counts() == COUNTS
    assert database.questions == 1


async def test_who_leaves_takes_nothing_from_the_others() -> None:
    database: Any = SlowDatabase()
    census = Census(database)
    leaving, staying = (asyncio.create_task(census.counts()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    database.answer.set()
    assert await staying == COUNTS


async def test_a_database_that_refuses() -> None:
    database: Any = SlowDatabase()
    database.problem = errors.ServiceUnavailable("gone")
    database.answer.set()
    assert await Census(database).counts() is None
