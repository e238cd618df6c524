"""Work beside the requests: started again when it fails, ended when the server ends."""

from __future__ import annotations

import asyncio
import logging

import pytest
from inferno import errors
from inferno.server.background import background, every

from tests.fakes import PATIENCE_S


@pytest.mark.anyio
async def test_a_job_that_fails_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    runs = 0
    third = asyncio.Event()

    async def job() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise errors.ServiceUnavailable("The database is busy.")
        if runs == 2:
            raise ValueError("a bug")
        third.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_S), background({"the job": job}, restart_s=0.001):
        await third.wait()
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert told == [
        (logging.WARNING, "the job: The database is busy."),
        (logging.ERROR, "the job failed and is started again"),
    ]


@pytest.mark.anyio
async def test_a_job_that_fails_over_its_own_end_does_not_stop_the_server_from_ending() -> None:
    began = asyncio.Event()

    async def job() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("its database is closed")

    async with asyncio.timeout(PATIENCE_S), background({"the job": job}):
        await began.wait()


@pytest.mark.anyio
async def test_what_is_done_now_and_then_is_done_once_more_at_the_end() -> None:
    done = 0
    twice = asyncio.Event()

    async def work() -> None:
        nonlocal done
        done += 1
        if done == 2:
            twice.set()

    async with asyncio.timeout(PATIENCE_S), background({"work": every(0.001, work)}):
        await twice.wait()
        before = done
    assert done >= before + 1
