"""The one place where the server opens connections because somebody else named a URL.

A name is resolved once, every address it has is checked, and an address that was checked is the one dialled; the name
lives on in the Host header and in the TLS handshake only. A redirect is an answer like others, and proxies named by
the environment are not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpcore

from inferno import errors
from inferno.webhooks.outcome import Failure, Outcome, retry_after_seconds
from inferno.webhooks.policy import Address, Policy
from inferno.webhooks.target import Target, check_url

__all__ = ["MAX_ANSWER_BYTES", "Outcome", "Policy", "check_target", "check_url", "post"]

#: Headers and body of an answer together; more is not read.
MAX_ANSWER_BYTES = 16 << 10
_RESOLVE_S = 5.0
#: For one of a name's addresses, so that a dead one leaves time for the next.
_CONNECT_S = 5.0


async def post(url: str, body: bytes, headers: Mapping[str, str], *, policy: Policy) -> Outcome:
    """Send `body` once. Whatever the receiver and the network do is an Outcome, within `policy.total_s`.

    The status and the headers decide; what follows of an answer is taken off the line and dropped.
    """
    started = time.monotonic()
    try:
        status, wait = await _delivered(url, body, headers, policy)
    except _FAILURES as error:
        return Outcome(seconds=time.monotonic() - started, error=_failure(error))
    return Outcome(seconds=time.monotonic() - started, status=status, retry_after=wait)


async def check_target(url: str, policy: Policy) -> None:
    """Refuse a URL that `post` would refuse now. Raises InvalidRequest(field="webhook_url").

    The message is the same for a name that does not resolve and one that leads to a forbidden address, so that it
    tells nothing about names of the network that this server is in.
    """
    try:
        await _checked_addresses(check_url(url), policy)
    except _Failed:
        raise errors.InvalidRequest(
            "webhook_url must name a host all of whose addresses are public or allowed by the operator.",
            field="webhook_url",
        ) from None


# ---- failures ----


class _Failed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


_FAILURES = (
    _Failed,
    errors.InvalidRequest,
    TimeoutError,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.RemoteProtocolError,
    OSError,
)


def _failure(error: Exception) -> Failure:
    if isinstance(error, _Failed):
        return error.failure
    if isinstance(error, errors.InvalidRequest):
        return "invalid_url"
    return "timed_out" if isinstance(error, TimeoutError | httpcore.TimeoutException) else "bad_answer"


# ---- one exchange ----


async def _delivered(url: str, body: bytes, headers: Mapping[str, str], policy: Policy) -> tuple[int, float | None]:
    """The answer's status and Retry-After."""
    deadline = asyncio.get_running_loop().time() + policy.total_s
    target = check_url(url)
    async with asyncio.timeout_at(deadline):
        addresses = await _checked_addresses(target, policy)
    request = _request(target, body, headers)
    tls = policy.tls or _default_tls()
    async with httpcore.AsyncHTTPConnection(
        request.url.origin, ssl_context=tls, network_backend=_Dialler(addresses)
    ) as connection:
        async with asyncio.timeout_at(deadline):
            response = await connection.handle_async_request(request)
        await _drain(response, deadline)
    return response.status, _retry_after(response)


def _request(target: Target, body: bytes, headers: Mapping[str, str]) -> httpcore.Request:
    sent = {
        "Host": target.authority,
        "User-Agent": "Inferno-Webhooks",
        "Connection": "close",
        **headers,
        "Content-Length": str(len(body)),
    }
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    return httpcore.Request("POST", url, headers=list(sent.items()), content=body)


async def _drain(response: httpcore.Response, deadline: float) -> None:
    """Take what is left of a short answer, so that its sender sees no reset. How it ends does not matter any more."""
    with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.RemoteProtocolError, OSError):
        async with asyncio.timeout_at(deadline):
            async for _ in response.aiter_stream():
                pass


def _retry_after(response: httpcore.Response) -> float | None:
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            return retry_after_seconds(value.decode("latin-1"), time.time())
    return None


@functools.cache
def _default_tls() -> ssl.SSLContext:
    return httpcore.default_ssl_context()


# ---- addresses ----


async def _checked_addresses(target: Target, policy: Policy) -> list[Address]:
    """All addresses of the target. Raises _Failed when there are none, or when one of them is forbidden."""
    addresses = _literal(target.host) or await _resolved(target, policy)
    if not all(policy.permits(address, target.port) for address in addresses):
        raise _Failed("forbidden_address")
    return addresses


def _literal(host: str) -> list[Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        return []


async def _resolved(target: Target, policy: Policy) -> list[Address]:
    try:
        async with asyncio.timeout(_RESOLVE_S):
            found = await policy.resolve(target.host, target.port)
    except (OSError, UnicodeError):  # TimeoutError is an OSError
        raise _Failed("unresolvable") from None
    if not found:
        raise _Failed("unresolvable")
    return [ipaddress.ip_address(address) for address in found]


class _Dialler(httpcore.AsyncNetworkBackend):
    """Connects to the addresses it was made with, one after the other, whatever host is asked for."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Failure = "connect_failed"
        for address in self._addresses:
            try:
                return _Line(await self._backend.connect_tcp(str(address), port, timeout=_CONNECT_S))
            except httpcore.ConnectTimeout:
                failure = "timed_out"
            except httpcore.ConnectError:
                failure = "connect_failed"
        raise _Failed(failure)


class _Line(httpcore.AsyncNetworkStream):
    """A connection that ends after MAX_ANSWER_BYTES have come."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MAX_ANSWER_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left == 0:
            return b""
        data = await self._stream.read(min(max_bytes, self._left), timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Line(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except httpcore.ConnectError:
            raise _Failed("tls_failed") from None
        except BaseException:  # cancelled, by the deadline too: httpcore leaves the connection open then
            await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
