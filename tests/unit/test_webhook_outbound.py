"""Real connections to receivers on loopback, well-behaved and not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from email.utils import formatdate
from typing import Any

import pytest
import trustme
from inferno import errors
from inferno.webhooks.outbound import MAX_ANSWER_BYTES, Outcome, Policy, check_target, post

from tests.fakes import PATIENCE_S

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance("K5")]

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
BODY = b'{"event":"model.loaded"}'


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


class Receiver:
    """A server on loopback. `heads` and `bodies` are what arrived, `hung_up` how many connections the other side ended
    before the answer was complete."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.connected = asyncio.Event()
        self.hung_up = asyncio.Semaphore(0)
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?x=1"


@contextlib.asynccontextmanager
async def receiver(
    answer: Answer, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None, read: bool = True
) -> AsyncIterator[Receiver]:
    """`read` False leaves the request to `answer`."""
    state, tasks = Receiver(), set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        state.connected.set()
        tasks.add(asyncio.current_task())
        try:
            if read:
                await _read_request(state, reader)
            await answer(reader, writer)
        except (ConnectionError, EOFError, ssl.SSLError):
            state.hung_up.release()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_request(state: Receiver, reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    state.heads.append(head)
    length = next(int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:"))
    state.bodies.append(await reader.readexactly(length))


def says(*parts: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()

    return answer


def status(code: int, *headers: str) -> Answer:
    lines = [f"HTTP/1.1 {code} Whatever", "Content-Length: 2", *headers, "", "ok"]
    return says("\r\n".join(lines).encode())


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the other side hangs up."""
    await reader.read()
    raise ConnectionResetError


def repeats(start: bytes, piece: bytes, pause: float = 0) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        raise ConnectionResetError

    return answer


def policy(**options: Any) -> Policy:
    return Policy(**{"allow": LOOPBACK, "total_s": 10.0, **options})


def resolver(*answers: Iterable[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """Gives one answer after the other."""
    left = iter(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return list(next(left))

    return resolve


async def send(url: str, **options: Any) -> Outcome:
    return await post(url, BODY, {"Content-Type": "application/json", "X-Inferno-Event": "e"}, policy=policy(**options))


class Deadlines:
    """Of a delivery: those until its answer's head is there do not pass before the test says so, however slow the
    machine; those after it are as they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._held: list[tuple[asyncio.Timeout, float]] = []
        self._real = asyncio.timeout_at
        monkeypatch.setattr(asyncio, "timeout_at", self._timeout_at)

    def _timeout_at(self, when: float) -> asyncio.Timeout:
        if len(self._held) == 2:  # addresses, head, rest
            return self._real(when)
        self._held.append((self._real(None), when))
        return self._held[-1][0]

    async def sent(self, there: Receiver, sending: Awaitable[Outcome]) -> Outcome:
        """The outcome of a delivery to a receiver that hangs: its time may be over once there is a connection."""
        task = asyncio.ensure_future(sending)
        await there.connected.wait()
        timeout, when = self._held[-1]
        timeout.reschedule(when)
        return await task


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> Deadlines:
    return Deadlines(monkeypatch)


# ---- answers ----


async def test_a_delivery() -> None:
    async with receiver(status(200)) as there:
        outcome = await send(there.url)
    assert (outcome.status, outcome.error, outcome.retry_after) == (200, None, None)
    assert 0 < outcome.seconds < 5
    assert there.bodies == [BODY]
    lines = there.heads[0].splitlines()
    assert lines[0] == "POST /hook?x=1 HTTP/1.1"
    assert {line.lower() for line in lines[1:] if line} == {
        f"host: 127.0.0.1:{there.port}",
        "user-agent: inferno-webhooks",
        "connection: close",
        "content-type: application/json",
        "x-inferno-event: e",
        f"content-length: {len(BODY)}",
    }


@pytest.mark.parametrize("code", [200, 201, 204, 400, 404, 410, 500])
async def test_every_status_is_told(code: int) -> None:
    async with receiver(says(f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n".encode())) as there:
        assert (await send(there.url)).status == code


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(code: int) -> None:
    async with receiver(status(200)) as elsewhere, receiver(status(code, f"Location: {elsewhere.url}")) as there:
        assert (await send(there.url)).status == code
        assert elsewhere.connections == 0


async def test_interim_answers_are_no_answers() -> None:
    async with receiver(says(b"HTTP/1.1 100 Continue\r\n\r\n" * 3, b"HTTP/1.1 202 X\r\n\r\n")) as there:
        assert (await send(there.url)).status == 202


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("120", 120, 120),
        ("-5", -5, -5),
        ("9" * 400, 1e9, 1e9),
        ("Thu, 01 Jan 1970 00:00:00 GMT", -1e10, -1e9),
    ],
)
async def test_retry_after(value: str, low: float, high: float) -> None:
    async with receiver(status(503, f"Retry-After: {value}")) as there:
        outcome = await send(there.url)
    assert outcome.status == 503
    assert outcome.retry_after is not None
    assert low <= outcome.retry_after <= high


async def test_a_retry_after_that_is_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    async with receiver(status(503, f"Retry-After: {formatdate(now + 3600, usegmt=True)}")) as there:
        assert (await send(there.url)).retry_after == 3600


async def test_a_retry_after_that_says_nothing() -> None:
    async with receiver(status(503, "Retry-After: soon\xff")) as there:
        assert (await send(there.url)).retry_after is None


# ---- receivers that misbehave ----


@pytest.mark.parametrize(
    "answer",
    [
        hang,
        repeats(b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.02),
        repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
    ],
    ids=["hangs", "drips a header", "drips interim answers"],
)
async def test_a_receiver_that_is_too_slow(answer: Answer, deadlines: Deadlines) -> None:
    async with receiver(answer) as there:
        outcome = await deadlines.sent(there, send(there.url, total_s=0.4))
        await asyncio.wait_for(there.hung_up.acquire(), PATIENCE_S)
    assert (outcome.status, outcome.error) == (None, "timed_out")
    assert outcome.seconds > 0.35  # uvloop's clock has milliseconds


async def test_a_receiver_that_never_reads() -> None:
    async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with receiver(idle, read=False) as there:
        outcome = await post(there.url, bytes(32 << 20), {}, policy=policy(total_s=0.4))
    assert outcome.error == "timed_out"


async def test_an_answer_that_drips_has_been_given(deadlines: Deadlines) -> None:
    """Its body would take longer than any test may."""
    async with receiver(repeats(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a", 0.02)) as there:
        outcome = await send(there.url, total_s=0.4)
        await asyncio.wait_for(there.hung_up.acquire(), PATIENCE_S)
    assert outcome.status == 200


async def test_a_short_answer_is_heard_out() -> None:
    hung_up_early = asyncio.get_running_loop().create_future()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        ended, _ = await asyncio.wait([asyncio.ensure_future(reader.read())], timeout=0.2)
        hung_up_early.set_result(bool(ended))
        writer.write(b"ok")

    async with receiver(slow) as there:
        assert (await send(there.url)).status == 200
        assert not await asyncio.wait_for(hung_up_early, 5)


async def test_an_answer_without_end_is_cut() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with receiver(repeats(head, b"1000\r\n" + b"a" * 4096 + b"\r\n")) as there:
        outcome = await send(there.url, total_s=30)
        await asyncio.wait_for(there.hung_up.acquire(), 5)
    assert outcome.status == 200
    assert outcome.seconds < 10


async def test_headers_without_end_are_cut() -> None:
    async with receiver(repeats(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 1000 + b"\r\n")) as there:
        outcome = await send(there.url, total_s=30)
        await asyncio.wait_for(there.hung_up.acquire(), 5)
    assert outcome.error == "bad_answer"
    assert outcome.seconds < 10


async def test_headers_may_be_long() -> None:
    async with receiver(status(200, "X-A: " + "a" * (MAX_ANSWER_BYTES // 2))) as there:
        assert (await send(there.url)).status == 200


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@pytest.mark.parametrize(
    "answer",
    [
        _reset,
        says(),
        says(b"HTTP/1.1 2"),
        says(b"SSH-2.0-x\r\n\r\n"),
        says(b"HTTP/1.1 abc OK\r\n\r\n"),
        says(b"\xff" * 99),
    ],
    ids=["reset", "nothing", "half a line", "another protocol", "no status", "garbage"],
)
async def test_what_is_no_answer(answer: Answer) -> None:
    async with receiver(answer) as there:
        outcome = await send(there.url)
    assert (outcome.status, outcome.error) == (None, "bad_answer")


async def test_a_cut_body_does_not_undo_the_answer() -> None:
    async with receiver(says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc")) as there:
        assert (await send(there.url)).status == 200


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = await send(f"http://127.0.0.1:{port}/")
    assert (outcome.status, outcome.error) == (None, "connect_failed")


async def test_others_do_not_wait_for_those_that_hang() -> None:
    async with receiver(hang) as bad, receiver(status(200)) as good:
        hanging = [asyncio.ensure_future(send(bad.url, total_s=30)) for _ in range(30)]
        assert (await send(good.url, total_s=5)).status == 200
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_cancelling_hangs_up() -> None:
    async with receiver(hang) as there:
        task = asyncio.ensure_future(send(there.url, total_s=30))
        while not there.bodies:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(there.hung_up.acquire(), 5)


async def test_nothing_stays_open() -> None:
    async def round_of_deliveries() -> None:
        async with receiver(hang) as bad, receiver(status(200)) as good, receiver(_reset) as rude:
            await asyncio.gather(*(send(there.url, total_s=0.2) for there in (bad, good, rude) for _ in range(10)))

    def open_files() -> int:
        gc.collect()  # what other tests left may be closed at any time, so at once
        return len(os.listdir("/proc/self/fd"))

    await round_of_deliveries()
    before = open_files()
    for _ in range(20):  # the receivers' ends take a while to close
        await asyncio.sleep(0.01)
        before = min(before, open_files())
    await round_of_deliveries()
    async with asyncio.timeout(PATIENCE_S):
        while open_files() > before:
            await asyncio.sleep(0.01)


# ---- addresses ----

FORBIDDEN = [
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://0.0.0.0:{port}/", "http://[::1]:{port}/",
    "http://[::]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://[::ffff:7f00:1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/", "http://127.1:{port}/", "http://2130706433:{port}/", "http://0x7f.1:{port}/",
    "http://0x7f000001:{port}/", "http://0177.0.0.1:{port}/", "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/", "http://[fd00::1]/", "http://[fd00:ec2::254]/", "http://10.0.0.1/", "http://100.64.0.1/",
    "http://192.168.0.1/", "http://224.0.0.1/", "http://127.0.0.1:{port}\\@ok/", "http://ok@127.0.0.1:{port}/",
    "http://127\u30020\u30020\u30021:{port}/", "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/", "file:///etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("form", FORBIDDEN)
async def test_forbidden_targets_at_creation_and_at_sending(form: str) -> None:
    async with receiver(status(200)) as there:
        url = form.format(port=there.port)
        with pytest.raises(errors.InvalidRequest) as caught:
            await check_target(url, Policy())
        outcome = await send(url, allow=())
        assert there.connections == 0
    assert caught.value.field == "webhook_url"
    assert outcome.error in ("invalid_url", "forbidden_address")


async def test_link_local_addresses_cannot_be_allowed() -> None:
    everything = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    for host in ("169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"):
        assert (await send(f"http://{host}/", allow=everything)).error == "forbidden_address"


async def test_the_servers_own_port_cannot_be_allowed() -> None:
    async with receiver(status(200)) as there:
        assert (await send(there.url, own_port=there.port)).error == "forbidden_address"
        assert there.connections == 0
        assert (await send(there.url, own_port=there.port - 1)).status == 200


async def test_an_allowed_target_may_be_made() -> None:
    await check_target("http://127.0.0.1:1/", policy())
    await check_target("http://a.test/", policy(resolve=resolver(["127.0.0.1"])))
    await check_target("https://8.8.8.8/", Policy())


async def test_rebinding_between_creation_and_sending() -> None:
    async with receiver(status(200)) as there:
        turning = Policy(resolve=resolver(["8.8.8.8"], ["127.0.0.1"]))
        await check_target(f"http://a.test:{there.port}/", turning)
        outcome = await post(f"http://a.test:{there.port}/", BODY, {}, policy=turning)
        assert (outcome.error, there.connections) == ("forbidden_address", 0)


async def test_the_checked_address_is_dialled_and_no_other() -> None:
    """The name means another receiver to the system's resolver, and to a second question."""
    async with receiver(status(500)) as wrong, receiver(status(200), host="127.0.0.2", port=wrong.port) as right:
        outcome = await send(f"http://localhost:{wrong.port}/", resolve=resolver(["127.0.0.2"], ["127.0.0.1"]))
        assert (outcome.status, wrong.connections, right.connections) == (200, 0, 1)
    assert f"host: localhost:{wrong.port}\r\n" in right.heads[0].lower()


@pytest.mark.parametrize("mixed", [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "2606:4700::1111"], ["8.8.8.8", "::1"]])
async def test_one_forbidden_address_forbids_the_name(mixed: list[str]) -> None:
    async with receiver(status(200)) as there:
        url = f"http://a.test:{there.port}/"
        assert (await send(url, allow=(), resolve=resolver(mixed))).error == "forbidden_address"
        with pytest.raises(errors.InvalidRequest):
            await check_target(url, Policy(resolve=resolver(mixed)))
        assert there.connections == 0


async def test_the_next_address_is_tried() -> None:
    async with receiver(status(200)) as there:
        outcome = await send(f"http://a.test:{there.port}/", resolve=resolver(["127.0.0.9", "::1", "127.0.0.1"]))
    assert outcome.status == 200


async def _fails(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def _says_nothing(host: str, port: int) -> list[str]:
    return []


@pytest.mark.parametrize("resolve", [_fails, _says_nothing])
async def test_names_without_address(resolve: Any) -> None:
    assert (await send("http://a.test/", resolve=resolve)).error == "unresolvable"
    with pytest.raises(errors.InvalidRequest) as unknown:
        await check_target("http://a.test/", policy(resolve=resolve))
    with pytest.raises(errors.InvalidRequest) as private:
        await check_target("http://a.test/", Policy(resolve=resolver(["10.1.2.3"])))
    assert unknown.value.message == private.value.message


async def test_a_resolver_that_hangs() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    outcome = await send("http://a.test/", resolve=resolve, total_s=0.2)
    assert outcome.error == "timed_out"  # after the resolver's own time it would be unresolvable


async def test_an_address_is_not_asked_for() -> None:
    async with receiver(status(200)) as there:
        assert (await send(there.url, resolve=_fails)).status == 200


async def test_the_systems_resolver() -> None:
    async with receiver(status(200)) as there:
        assert (await send(f"http://localhost:{there.port}/")).status == 200
    assert (await send("http://no-such-name.invalid/")).error == "unresolvable"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"])
async def test_proxies_of_the_environment_are_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver(status(200)) as there, receiver(status(200), read=False) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await send(there.url)).status == 200
        assert (there.connections, proxy.connections) == (1, 0)


# ---- TLS ----


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def _client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_tls_is_with_the_name_and_not_with_the_address(authority: trustme.CA) -> None:
    asked: list[str | None] = []
    tls = _server_tls(authority, "a.test")
    tls.sni_callback = lambda _, name, __: asked.append(name)
    async with receiver(status(200), tls=tls) as there:
        url = f"https://A.test:{there.port}/"
        outcome = await send(url, resolve=resolver(["127.0.0.1"]), tls=_client_tls(authority))
    assert (outcome.status, outcome.error, asked) == (200, None, ["a.test"])
    assert f"host: a.test:{there.port}\r\n" in there.heads[0].lower()


async def test_tls_with_an_address(authority: trustme.CA) -> None:
    async with receiver(status(200), tls=_server_tls(authority, "127.0.0.1")) as there:
        outcome = await send(f"https://127.0.0.1:{there.port}/", tls=_client_tls(authority))
    assert outcome.status == 200


async def test_a_certificate_of_another(authority: trustme.CA) -> None:
    async with receiver(status(200), tls=_server_tls(authority, "b.test")) as there:
        url = f"https://a.test:{there.port}/"
        outcome = await send(url, resolve=resolver(["127.0.0.1"]), tls=_client_tls(authority))
    assert (outcome.error, there.bodies) == ("tls_failed", [])


async def test_a_certificate_of_an_unknown_authority(authority: trustme.CA) -> None:
    async with receiver(status(200), tls=_server_tls(authority, "127.0.0.1")) as there:
        outcome = await send(f"https://127.0.0.1:{there.port}/")
    assert (outcome.error, there.bodies) == ("tls_failed", [])


@pytest.mark.parametrize(
    "answer", [says(b"HTTP/1.1 400 X\r\n\r\n"), says(b"\x16\x03\x01\xff\xff" * 50), says(), _reset]
)
async def test_what_is_no_tls(answer: Answer) -> None:
    async with receiver(answer, read=False) as there:
        outcome = await send(f"https://127.0.0.1:{there.port}/")
    assert outcome.error == "tls_failed"


async def test_a_handshake_that_hangs(deadlines: Deadlines) -> None:
    async with receiver(hang, read=False) as there:
        outcome = await deadlines.sent(there, send(f"https://127.0.0.1:{there.port}/", total_s=0.4))
        await asyncio.wait_for(there.hung_up.acquire(), PATIENCE_S)
    assert outcome.error == "timed_out"


async def test_a_tls_receiver_that_hangs(authority: trustme.CA, deadlines: Deadlines) -> None:
    async with receiver(hang, tls=_server_tls(authority, "127.0.0.1")) as there:
        sending = send(f"https://127.0.0.1:{there.port}/", total_s=0.5, tls=_client_tls(authority))
        outcome = await deadlines.sent(there, sending)
        await asyncio.wait_for(there.hung_up.acquire(), PATIENCE_S)
    assert outcome.error == "timed_out"
