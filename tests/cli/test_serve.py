"""`inferno serve`: what its flags mean. Nothing is served here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from inferno.cli import serve as serve_module
from inferno.config import Settings

Serve = Callable[..., Settings]


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """The settings that a server would get for these arguments; raises what the command raises."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    got: list[Settings] = []
    monkeypatch.setattr(serve_module, "run_server", lambda settings, ready: got.append(settings))

    def serve(*arguments: str) -> Settings:
        CliRunner().invoke(serve_module.serve, arguments, catch_exceptions=False, standalone_mode=False)
        return got[-1]

    return serve


@pytest.mark.acceptance("G1")
@pytest.mark.parametrize(
    ("arguments", "host", "port"),
    [
        ((), "127.0.0.1", 8080),
        (("--port", "9000"), "127.0.0.1", 9000),
        (("--host", "::1"), "::1", 8080),
        (("--bind", "192.0.2.1:9000"), "192.0.2.1", 9000),
        (("--bind", "[::1]:9000"), "[::1]", 9000),
        (("--bind", "localhost:0"), "localhost", 0),
    ],
)
def test_where_it_listens(settings_of: Serve, arguments: tuple[str, ...], host: str, port: int) -> None:
    server = settings_of(*arguments).server
    assert (server.host, server.port) == (host, port)


@pytest.mark.acceptance("G1")
@pytest.mark.parametrize("bind", ["9000", ":9000", "localhost:", "localhost:x", "localhost"])
def test_what_is_no_address(settings_of: Serve, bind: str) -> None:
    with pytest.raises(click.BadParameter, match="HOST:PORT"):
        settings_of("--bind", bind)


@pytest.mark.acceptance("A7", "L1", "S4", "S8")
def test_keys_and_limits_are_asked_for_unless_somebody_says_otherwise(settings_of: Serve) -> None:
    settings = settings_of()
    assert (settings.auth.enabled, settings.limits.enabled) == (True, True)
    settings = settings_of("--no-auth", "--no-rate-limits")
    assert (settings.auth.enabled, settings.limits.enabled) == (False, False)


@pytest.mark.acceptance("S1")
def test_certificate_and_key(settings_of: Serve) -> None:
    server: Any = settings_of("--tls-cert", "cert.pem", "--tls-key", "key.pem").server
    assert (server.tls_cert, server.tls_key) == (Path("cert.pem"), Path("key.pem"))
    assert settings_of().server.tls_cert is None
