"""Builds the services from settings and runs them under uvicorn."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from inferno import errors
from inferno.config import Settings, is_loopback
from inferno.identity.keys import KeyRing, stored_key
from inferno.models.pool import ModelPool
from inferno.models.registry import Registry
from inferno.server.app import create_app
from inferno.server.services import Services

_MAX_HEADER_BYTES = 64 * 1024
#: Called once the server answers, with its address, the key to use (None without authentication), and whether
#: that key was made just now.
Ready = Callable[[str, str | None, bool], None]


def serve(settings: Settings, ready: Ready) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish for the drain time; a second signal ends at
    once. Raises InvalidRequest for settings that are unsafe, ServiceUnavailable when the address is taken."""
    if not settings.auth.enabled and not is_loopback(settings.server.host):
        raise errors.InvalidRequest("Authentication can be off on a loopback address only.", field="auth.enabled")
    key, is_new = _key(settings)
    registry = Registry(settings.models.dir, settings.models.aliases)
    services = Services(settings, registry, ModelPool(registry, settings), KeyRing(key))
    listeners = _listen(settings.server.host, settings.server.port)
    host, port = settings.server.host, listeners[0].getsockname()[1]
    shown = "localhost" if is_loopback(host) else host
    config = uvicorn.Config(
        create_app(services),
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        timeout_graceful_shutdown=max(1, round(settings.server.drain_s)),
        lifespan="on",
        ws="none",
    )
    server = _Server(config, services.pool, lambda: ready(f"http://{shown}:{port}", key, is_new))
    try:
        server.run(sockets=listeners)
    finally:
        for listener in listeners:
            listener.close()
    if server.failed_to_start:
        raise errors.ServiceUnavailable("The server did not start; see the log.")


def _key(settings: Settings) -> tuple[str | None, bool]:
    if not settings.auth.enabled:
        return None, False
    if settings.auth.api_key:
        return settings.auth.api_key, False
    return stored_key(settings.data_dir)


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


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, pool: ModelPool, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._pool = pool
        self._ready = ready
        self.failed_to_start = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.failed_to_start = not self.started
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._pool.begin_closing()  # /readyz says so from now on
        super().handle_exit(sig, frame)
