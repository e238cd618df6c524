"""HTTPS and WSS, as `--tls-cert` and `--tls-key` make them."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from websockets.sync.client import connect

from tests.e2e.conftest import KEY, Server

pytestmark = pytest.mark.acceptance("S1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the certificate that our own authority has, beside those of a server."""
    directory, made = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = made.issue_cert("localhost")
    made.cert_pem.write_to_path(directory / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    return directory / "ca.pem"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Iterator[Server]:
    files = ("--tls-cert", str(authority.with_name("cert.pem")), "--tls-key", str(authority.with_name("key.pem")))
    running = Server(tmp_path_factory.mktemp("data"), *files, trust=trusting(authority))
    yield running
    assert running.stop() == 0


def trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


def test_https(server: Server) -> None:
    assert server.url.startswith("https://localhost:")
    assert server.curl_line.startswith(f"curl {server.url}/")
    assert server.client.get("/models").json() == {"models": []}
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(f"{server.url}/health")  # who does not know the authority


def test_nothing_is_said_without_it(server: Server) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https", "http") + "/health")


def test_wss(server: Server, authority: Path) -> None:
    uri = server.url.replace("https", "wss") + "/ws"
    with connect(uri, ssl=trusting(authority), proxy=None) as connection:
        connection.send(json.dumps({"type": "auth", "token": KEY}))
        assert json.loads(connection.recv(timeout=30))["status"] == "ok"


def test_the_command_line(server: Server, authority: Path) -> None:
    where = ("--url", server.url, "--key", KEY, "--ca-file", str(authority))
    assert json.loads(server.command("metrics", "--snapshot", *where))["models"] == []
