"""Builds the services from settings and runs them under uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import uvicorn
from filelock import FileLock, Timeout

from inferno import errors
from inferno.config import Settings, is_loopback
from inferno.identity.local_key import ensure_local_key
from inferno.models.pool import ModelPool
from inferno.models.registry import Registry
from inferno.server.app import create_app
from inferno.server.protocol import GuardedProtocol
from inferno.server.services import Services, build_services
from inferno.server.websocket_protocol import MAX_MESSAGE_BYTES, GuardedWebSocket
from inferno.store.database import Database

log = logging.getLogger(__name__)

#: How long an idle connection is kept: longer than clients keep theirs, or they meet a closed one.
_KEEP_ALIVE_S = 30
#: How often a WebSocket is asked whether its peer is still there, and how long the answer may take.
_PING_S = 20.0
_PONG_S = 20.0
#: How long connections get to take in their last bytes once everything has been cancelled.
_LAST_WORDS_S = 2
#: Called once the server answers, with its address, the key to use (None without authentication), and whether
#: that key was made just now.
Ready = Callable[[str, str | None, bool], None]


def serve(settings: Settings, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT. Then nothing new is begun, /readyz says 503 and what runs may go on for
    `server.drain_s` seconds; a second signal cuts it off.

    Raises InvalidRequest for settings that are unsafe, ServiceUnavailable when the address is taken.
    """
    if not settings.auth.enabled and not is_loopback(settings.server.host):
        raise errors.InvalidRequest("Authentication can be off on a loopback address only.", field="auth.enabled")
    _check_certificate(settings.server.tls_cert, settings.server.tls_key)
    with _only_server(settings.data_dir):
        database = Database(settings.store.url, data_dir=settings.data_dir)
        try:
            key, is_new = _key(settings, database)
            registry = Registry(settings.models.dir, settings.models.aliases)
            services = build_services(settings, registry, ModelPool(registry, settings), database)
            run(services, lambda url: ready(url, key, is_new))
        finally:
            database.close()


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    """uvicorn would find out in the midst of starting. Raises InvalidRequest."""
    if certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        message = f"server.tls_cert and server.tls_key cannot be used ({certificate}, {key}): {error}."
        raise errors.InvalidRequest(message, field="server.tls_cert") from None


def _no_password() -> str:
    raise ValueError("the key has a password")


@contextlib.contextmanager
def _only_server(data_dir: Path) -> Iterator[None]:
    """Two servers on one data directory would run each other's batches."""
    lock = FileLock(data_dir / "server.lock", blocking=False, mode=0o600)
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    except Timeout:
        raise errors.ServiceUnavailable(f"Another server uses {data_dir}; give this one another --data-dir.") from None
    except OSError as error:
        raise errors.ServiceUnavailable(f"The data directory {data_dir} cannot be used: {error.strerror}.") from None
    with lock:
        yield


def run(services: Services, ready: Callable[[str], None]) -> None:
    """Serve built services. `ready` is called with the address once they answer."""
    server_settings = services.settings.server
    if server_settings.tls_cert is None and not is_loopback(server_settings.host):
        log.warning(
            "keys and texts travel unencrypted: give --tls-cert and --tls-key, or put a proxy with TLS in front"
        )
    listeners = _listen(server_settings.host, server_settings.port)
    shown = "localhost" if is_loopback(server_settings.host) else server_settings.host
    scheme = "http" if server_settings.tls_cert is None else "https"
    url = f"{scheme}://{shown}:{listeners[0].getsockname()[1]}"
    server = Server(services, lambda: ready(url))
    try:
        server.run(sockets=listeners)
    finally:
        for listener in listeners:
            listener.close()
    if not server.started:
        raise errors.ServiceUnavailable("The server did not start; see the log.")


def _key(settings: Settings, database: Database) -> tuple[str | None, bool]:
    """The key for this machine's own programs, and whether it was made just now."""
    if not settings.auth.enabled:
        return None, False
    if settings.auth.api_key:
        return settings.auth.api_key, False
    return ensure_local_key(database, settings.data_dir)


def _listen(host: str, port: int) -> list[socket.socket]:
    """The socket asked for and, beside 127.0.0.1, also [::1]: `localhost` means either."""
    try:
        listeners = [_bound(host, port)]
    except OSError as error:
        raise errors.ServiceUnavailable(f"{host}:{port} cannot be listened on: {error.strerror}.") from None
    if host in ("127.0.0.1", "localhost"):
        with contextlib.suppress(OSError):
            listeners.append(_bound("::1", listeners[0].getsockname()[1]))
    return listeners


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


class Server(uvicorn.Server):
    """uvicorn, with an end in two steps: it goes on answering while it drains, so that those who ask learn why
    they are turned away, and it exits with status 0."""

    def __init__(self, services: Services, ready: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            create_app(services),
            http=GuardedProtocol,
            ws=GuardedWebSocket,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PONG_S,
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=services.settings.server.tls_cert,
            ssl_keyfile=services.settings.server.tls_key,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LAST_WORDS_S,
            lifespan="on",
        )
        super().__init__(config)
        self._pool = services.pool
        self._draining = services.draining
        self._drain_s = services.settings.server.drain_s
        self._ready = ready
        self._drained_by: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to drain, the second ends that, a third waits for nobody. Unlike the base class,
        does not send the signal on to this process at the end."""
        if self._drained_by is None:
            self._pool.begin_closing()
            self._drained_by = time.monotonic() + self._drain_s
            if not self.started:  # nobody has asked for what is being loaded
                asyncio.get_running_loop().call_soon_threadsafe(self._pool.give_up_loads)
        elif not self.should_exit:
            self._drained_by = 0.0
        else:
            self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._drained_by is not None and not self.should_exit:
            await self._drain(self._drained_by)
        return await super().on_tick(counter)

    async def _drain(self, until: float) -> None:
        self._draining.set()
        running = len(self.server_state.tasks)
        self.should_exit = running == 0 or time.monotonic() >= until
        if self.should_exit and running:
            log.warning("%d requests did not end in time and are cut off", running)
            await self._pool.close(0.0)  # their streams end with an error that says so
            if tasks := self.server_state.tasks:  # uvicorn would close WebSockets before that has been said
                await asyncio.wait(tasks, timeout=_LAST_WORDS_S)
