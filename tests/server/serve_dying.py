"""The real server over a fake engine, in a process that kills itself: `python -m tests.server.serve_dying DATA_DIR`.

A point to die at is `NAME:before:N` or `NAME:after:N`. NAME is a function of `inferno.batch.jobs` or
`inferno.webhooks.outbox` that runs in a transaction, or `post`, the sending of a webhook. The process dies at the N-th
transaction in which the function ran, before its commit or after it; for `post`, once the receiver has answered.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
from inferno.batch import jobs
from inferno.engine.generation import Generation
from inferno.request import Request, TextPrompt
from inferno.server.run import run
from inferno.store.database import Database
from inferno.telemetry import logs
from inferno.webhooks import outbound, outbox

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import AUTH, make_services

#: Children come of a process that has imported everything already.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


class HoldingEngine(FakeEngine):
    """Answers all prompts but those that begin with `word`."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word
        self._told = self.pieces

    async def submit(self, request: Request) -> Generation:
        prompt = request.prompts[0]
        held = isinstance(prompt, TextPrompt) and prompt.text.startswith(self._word)
        self.pieces = None if held else self._told
        return await super().submit(request)


def serve(data_dir: Path, point: str | None, hold: str | None, ready: Callable[[str], None]) -> None:
    if point is not None:
        _die_at(*point.split(":"))
    engine = FakeEngine() if hold is None else HoldingEngine(hold)
    database = Database("", data_dir=data_dir)
    services = make_services(
        engine, database=database, server__port=0, webhook__allow=["127.0.0.0/8"], server__drain_s=2.0
    )
    run(services, ready)
    database.close()


# ---- dying ----


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(name: str, when: str, count: str) -> None:
    if name == "post":
        _die_after_sending()
        return
    left, ran = int(count), False
    module: Any = jobs if hasattr(jobs, name) else outbox
    function, write_now = getattr(module, name), Database.write_now

    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        nonlocal ran
        result = function(*args, **kwargs)
        ran = name != "claim" or bool(result)  # most claims find nothing
        return result

    def watched(database: Database, work: Callable[[Any], Any]) -> Any:
        def counted(connection: Any) -> Any:
            nonlocal left, ran
            ran = False
            result = work(connection)
            left -= ran
            if ran and left == 0 and when == "before":
                _die()
            return result

        result = write_now(database, counted)
        if ran and left == 0:
            _die()
        return result

    setattr(module, name, noted)
    Database.write_now = watched  # type: ignore[method-assign]


def _die_after_sending() -> None:
    post = outbound.post

    async def deadly(*args: Any, **kwargs: Any) -> Any:
        await post(*args, **kwargs)
        _die()

    outbound.post = deadly  # type: ignore[assignment]


# ---- the test's side ----


class Child:
    """A server in a process of its own, with a client."""

    def __init__(self, data_dir: Path, point: str | None = None, hold: str | None = None) -> None:
        self.data_dir = data_dir
        ours, theirs = _FORKS.Pipe(duplex=False)
        self.process = _FORKS.Process(target=_serve_in_child, args=(data_dir, point, hold, theirs))
        self.process.start()
        theirs.close()
        assert ours.poll(2 * PATIENCE_S)
        self.url: str = ours.recv()
        ours.close()
        self.client = httpx.Client(base_url=self.url, headers=AUTH, timeout=PATIENCE_S)

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response | None:
        """None when the server did not live to answer."""
        try:
            return self.client.post(path, json=body, headers=headers)
        except httpx.TransportError:
            return None

    def dead(self) -> bool:
        """Whether it has killed itself, in time."""
        self.process.join(2 * PATIENCE_S)
        return self.process.exitcode == -signal.SIGKILL

    def stop(self, sig: int = signal.SIGTERM) -> int | None:
        """Ends the server, unless it has ended, and returns its exit status."""
        self.client.close()
        if self.process.is_alive():
            assert self.process.pid is not None
            os.kill(self.process.pid, sig)
        self.process.join(2 * PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError("the server did not end")
        return self.process.exitcode

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)


def _serve_in_child(data_dir: Path, point: str | None, hold: str | None, parent: Connection) -> None:
    logs.configure("warning", "text")
    serve(data_dir, point, hold, parent.send)


def rows(data_dir: Path, query: str) -> list[tuple[Any, ...]]:
    """What stands in the database, read as anybody could."""
    return list(_run(data_dir, query))


def change(data_dir: Path, statement: str) -> None:
    """Time travel, among other things."""
    _run(data_dir, statement)


def _run(data_dir: Path, statement: str) -> Iterator[tuple[Any, ...]]:
    connection = sqlite3.connect(data_dir / "inferno.db", timeout=PATIENCE_S)
    try:
        with connection:
            return iter(connection.execute(statement).fetchall())
    finally:
        connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--die")
    parser.add_argument("--hold")
    given = parser.parse_args(sys.argv[1:])
    logs.configure("info", "text")
    serve(given.data_dir, given.die, given.hold, lambda url: print(url, flush=True))
