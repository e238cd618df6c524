"""T5: starting and stopping, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from inferno import errors
from inferno.server import run
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import AUTH, KEY, PROMPT, make_services, settings


class Child:
    """A running server with a fake engine that never stops talking by itself."""

    def __init__(self, drain_s: float, log_level: str) -> None:
        command = [sys.executable, "-m", "tests.server.serve_fake", str(drain_s), log_level]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    @contextlib.contextmanager
    def stream(self) -> Iterator[Iterator[str]]:
        """Lines of a stream that has begun."""
        with httpx.stream(
            "POST", f"{self.url}/inference/stream", json=PROMPT, headers=AUTH, timeout=PATIENCE_S
        ) as response:
            lines = response.iter_lines()
            assert "word" in next(lines)
            yield lines

    @contextlib.contextmanager
    def websocket(self, *names: str, headers: dict[str, str] = AUTH) -> Iterator[ClientConnection]:
        """A connection on which requests of these ids have begun to stream."""
        uri = self.url.replace("http", "ws", 1) + "/ws"
        with connect(uri, additional_headers=headers, proxy=None) as connection:
            for name in names:
                connection.send(json.dumps({"type": "inference", "id": name, "stream": True, **PROMPT}))
                assert "word" in connection.recv(PATIENCE_S)
            yield connection

    def readyz(self) -> int:
        return httpx.get(f"{self.url}/readyz").status_code

    def until_not_ready(self) -> None:
        while self.readyz() == 200:
            pass

    def end(self) -> tuple[int, str]:
        """Exit status and log, once the process has ended by itself."""
        _, log = self.process.communicate(timeout=2 * PATIENCE_S)
        return self.process.returncode, log


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    children = []

    def make(drain_s: float, log_level: str = "info") -> Child:
        children.append(Child(drain_s, log_level))
        return children[-1]

    yield make
    for child in children:
        child.process.kill()
        child.process.communicate()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_status_0(start: Callable[[float], Child], sig: int) -> None:
    child = start(30)
    assert child.readyz() == 200
    child.process.send_signal(sig)
    status, log = child.end()
    assert status == 0
    assert "Traceback" not in log


@pytest.mark.acceptance("X4")
def test_running_streams_go_on_and_new_ones_are_refused(start: Callable[[float], Child]) -> None:
    child = start(30)
    with child.stream():
        child.process.send_signal(signal.SIGTERM)
        child.until_not_ready()
        assert httpx.get(f"{child.url}/health").status_code == 200
        refused = httpx.post(f"{child.url}/inference", json=PROMPT, headers=AUTH)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert child.process.poll() is None
    assert child.end()[0] == 0


def test_streams_that_outlast_the_drain_time_end_with_an_error(start: Callable[[float], Child]) -> None:
    child = start(0.2)
    with child.stream() as lines:
        child.process.send_signal(signal.SIGTERM)
        frames = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert [frame["error"]["code"] for frame in frames] == ["SERVICE_UNAVAILABLE"]
    assert child.end()[0] == 0


def test_a_second_signal_ends_at_once(start: Callable[[float], Child]) -> None:
    child = start(30)
    with child.stream() as lines:
        child.process.send_signal(signal.SIGTERM)
        child.until_not_ready()
        child.process.send_signal(signal.SIGTERM)
        assert "SERVICE_UNAVAILABLE" in next(line for line in lines if line)
    status, log = child.end()
    assert status == 0
    assert "Traceback" not in log


@pytest.mark.acceptance("W8")
def test_an_idle_websocket_does_not_hold_up_the_end(start: Callable[[float], Child]) -> None:
    child = start(30)
    with child.websocket() as connection:
        child.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            connection.recv(PATIENCE_S)
        assert connection.close_code == 1012
    status, log = child.end()
    assert status == 0
    assert "Traceback" not in log


@pytest.mark.acceptance("X4")
def test_running_requests_of_a_websocket_go_on_and_new_ones_are_refused(start: Callable[[float], Child]) -> None:
    child = start(30)
    with child.websocket("a", "b") as connection:
        child.process.send_signal(signal.SIGTERM)
        child.until_not_ready()
        connection.send(json.dumps({"type": "inference", "id": "c", **PROMPT}))
        refused = json.loads(connection.recv(PATIENCE_S))
        assert (refused["id"], refused["code"]) == ("c", "SERVICE_UNAVAILABLE")
        for name in ("a", "b"):
            connection.send(json.dumps({"type": "cancel", "id": name}))
            assert json.loads(connection.recv(PATIENCE_S))["text"] == "word"
        with pytest.raises(ConnectionClosed):
            connection.recv(PATIENCE_S)
        assert connection.close_code == 1012
    assert child.end()[0] == 0


def test_requests_of_a_websocket_that_outlast_the_drain_time(start: Callable[[float], Child]) -> None:
    child = start(0.2)
    with child.websocket("a", "b") as connection:
        child.process.send_signal(signal.SIGTERM)
        errors_told = [json.loads(connection.recv(PATIENCE_S)) for _ in range(2)]
        assert sorted((error["id"], error["code"]) for error in errors_told) == [
            ("a", "SERVICE_UNAVAILABLE"),
            ("b", "SERVICE_UNAVAILABLE"),
        ]
        with pytest.raises(ConnectionClosed):
            connection.recv(PATIENCE_S)
        assert connection.close_code == 1012
    status, log = child.end()
    assert status == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("headers", [AUTH, {"X-API-Key": KEY}], ids=["bearer", "x-api-key"])
def test_keys_are_not_in_the_log_at_any_level(start: Callable[..., Child], headers: dict[str, str]) -> None:
    child = start(30, "debug")
    with child.websocket("a", headers=headers):
        pass
    child.process.send_signal(signal.SIGTERM)
    log = child.end()[1]
    assert "route=/ws" in log
    assert KEY not in log


@pytest.mark.acceptance("A7", "S8")
def test_no_authentication_on_loopback_only() -> None:
    safe = settings(auth__enabled=False)
    unsafe = msgspec.structs.replace(safe, server=msgspec.structs.replace(safe.server, host="192.0.2.1"))
    with pytest.raises(errors.InvalidRequest, match="loopback"):
        run.serve(unsafe, print)


@pytest.mark.acceptance("S1")
@pytest.mark.parametrize(
    ("flags", "warns"),
    [
        ({"server__host": "192.0.2.1"}, True),
        ({"server__host": "0.0.0.0"}, True),
        ({"server__host": "127.0.0.1"}, False),
        ({"server__host": "::1"}, False),
        ({"server__host": "192.0.2.1", "server__tls_cert": "c.pem", "server__tls_key": "k.pem"}, False),
    ],
)
def test_who_listens_to_others_without_tls_is_warned(
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flags: dict[str, str],
    warns: bool,
) -> None:
    def refuse(host: str, port: int) -> list[socket.socket]:
        raise errors.ServiceUnavailable("It is only about the warning.")

    monkeypatch.setattr(run, "_listen", refuse)
    with pytest.raises(errors.ServiceUnavailable, match="only about the warning"):
        run.run(make_services(engine, **flags), print)
    assert ("travel unencrypted: give --tls-cert and --tls-key" in caplog.text) == warns


@pytest.mark.acceptance("S1")
def test_certificates_are_looked_at_before_anything_begins(tmp_path: Path) -> None:
    authority = trustme.CA()
    one, other = (authority.issue_cert("localhost") for _ in range(2))
    one.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    one.private_key_pem.write_to_path(tmp_path / "key")
    other.private_key_pem.write_to_path(tmp_path / "other")
    locked = serialization.load_pem_private_key(one.private_key_pem.bytes(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "locked").write_bytes(locked)
    (tmp_path / "garbage").write_text("garbage")
    for cert, key in (("none", "key"), ("cert", "none"), ("garbage", "key"), ("cert", "other"), ("cert", "locked")):
        unusable = settings(
            server__tls_cert=str(tmp_path / cert), server__tls_key=str(tmp_path / key), data_dir=str(tmp_path / "data")
        )
        with pytest.raises(errors.InvalidRequest, match=r"server\.tls_cert and server\.tls_key cannot be used"):
            run.serve(unusable, print)
    assert not (tmp_path / "data").exists()


@pytest.mark.acceptance("G1")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_localhost_means_both_of_its_addresses(host: str) -> None:
    listeners = run._listen(host, 0)
    try:
        addresses = {listener.getsockname()[0] for listener in listeners}
        ports = {listener.getsockname()[1] for listener in listeners}
    finally:
        for listener in listeners:
            listener.close()
    assert addresses == ({"127.0.0.1", "::1"} if has_ipv6_loopback() else {"127.0.0.1"})
    assert len(ports) == 1


def has_ipv6_loopback() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_an_address_that_is_taken(engine: FakeEngine) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(errors.ServiceUnavailable, match="Address already in use"),
    ):
        run.run(make_services(engine, server__port=taken.getsockname()[1]), print)
