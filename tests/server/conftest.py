"""The application over fakes: called directly, or served on a port by a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from inferno.config import Settings, load_settings
from inferno.engine.devices import Device, KnownDevices
from inferno.server.app import create_app
from inferno.server.run import Server
from inferno.server.services import Services, build_services
from inferno.store.database import Database

from tests.fakes import PATIENCE_S, FakeEngine, FakePool, FakeRegistry

KEY = "test-key-12345"
MODEL = "llama-2-7b"
AUTH = {"Authorization": f"Bearer {KEY}"}
PROMPT = {"model": MODEL, "prompt": "What is the capital of France?"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


def settings(**flags: Any) -> Settings:
    """Defaults, changed by flags such as `server__keepalive_s=1`."""
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(flags=named, environ={"XDG_CONFIG_HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent"})


@functools.cache
def shared_database() -> Database:
    """In memory, for tests that leave nothing in it that others would stumble over."""
    database = Database("")
    atexit.register(database.close)
    return database


def close_database(services: Services) -> None:
    """At a test's end: a connection that is left open is told of in whichever test collects it."""
    if services.database is not shared_database():
        services.database.close()


def make_services(
    engine: FakeEngine, key: str | None = KEY, database: Database | None = None, **flags: Any
) -> Services:
    """Limits are off unless a flag switches them on."""
    registry: Any = FakeRegistry(MODEL, "org/name")
    pool: Any = FakePool(registry, engine)
    defaults = {"limits__enabled": False, "auth__enabled": key is not None, "auth__api_key": key}
    services = build_services(settings(**{**defaults, **flags}), registry, pool, database or shared_database())
    services.devices = KnownDevices(fake_devices)
    return services


async def fake_devices() -> list[Device]:
    return [Device(name="Fake0", description="A fake", kind="gpu", total_bytes=8000, free_bytes=7000)]


#: What an error never says: where something is on this machine, and what the program was doing.
LEAKS = re.compile(r"Traceback|File \"|\.py\b|\b0x[0-9a-f]{6,}|/(secret|tmp|home|root|usr|var)/")


def check_refusal(response: httpx.Response) -> None:
    """An error is in the envelope, whoever made it, and leaks nothing."""
    body = response.json()
    assert body.keys() == {"error", "request_id", "timestamp"}
    assert body["error"].keys() >= {"code", "message", "details"}
    assert body["request_id"] == response.headers["x-request-id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    assert not LEAKS.search(response.text)


class AppTransport(httpx.BaseTransport):
    """Calls an application without a network, from synchronous code. Every refusal is looked at."""

    def __init__(self, services: Services) -> None:
        self.runner = asyncio.Runner()
        self._transport = httpx.ASGITransport(create_app(services))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def call() -> httpx.Response:
            response = await self._transport.handle_async_request(request)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        response = self.runner.run(call())
        if response.is_error and request.method != "HEAD":
            check_refusal(response)
        return response

    def close(self) -> None:
        self.runner.close()


class Live:
    """A real server on a free port of this machine."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.engine: FakeEngine = services.pool.engine  # type: ignore[attr-defined]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        ready = threading.Event()
        self.server = Server(services, ready.set)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        assert ready.wait(PATIENCE_S)

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.join()

    def join(self) -> None:
        self._thread.join(2 * PATIENCE_S)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def post(self, path: str, body: dict[str, Any], connection: socket.socket | None = None) -> socket.socket:
        """A socket on which the request has been sent and nothing been read."""
        connection = connection or self.connect()
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(data)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + data)
        return connection


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def silent_engine() -> FakeEngine:
    """Says nothing but what the test says."""
    return FakeEngine(None)


@pytest.fixture
def services(engine: FakeEngine) -> Services:
    return make_services(engine)


@pytest.fixture
def connect() -> Iterator[Callable[..., httpx.Client]]:
    """Makes clients of applications, with the key unless told otherwise."""
    with contextlib.ExitStack() as databases, contextlib.ExitStack() as stack:

        def make(services: Services, headers: dict[str, str] = AUTH) -> httpx.Client:
            databases.callback(close_database, services)
            client = httpx.Client(transport=AppTransport(services), base_url="http://localhost", headers=headers)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(connect: Callable[..., httpx.Client], services: Services) -> httpx.Client:
    return connect(services)


@pytest.fixture
def serve() -> Iterator[Callable[..., Live]]:
    """Starts servers over an engine and flags of settings."""
    with contextlib.ExitStack() as databases, contextlib.ExitStack() as stack:

        def start(engine: FakeEngine, **flags: Any) -> Live:
            live = Live(make_services(engine, **flags))
            databases.callback(close_database, live.services)
            stack.callback(live.stop)
            return live

        yield start


@pytest.fixture
def live(serve: Callable[..., Live], silent_engine: FakeEngine) -> Live:
    return serve(silent_engine)


def sse_data(text: str) -> list[Any]:
    """The data of each frame: JSON, or as it is."""
    blocks = [block for block in text.split("\n\n") if block.startswith("data: ")]
    raw = [block.removeprefix("data: ") for block in blocks]
    return [item if item == "[DONE]" else json.loads(item) for item in raw]
