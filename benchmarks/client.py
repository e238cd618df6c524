"""A light HTTP client: it shares the processor with the server that it measures.

One connection is one asyncio Protocol on a plain socket. Of each event it decodes only what is counted: whether there
is text, and the usage at the end. Tokens are counted by `usage`, never by pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from benchmarks.exchange import Exchange, Failed, Job, Refused
from benchmarks.http_response import Response

T = TypeVar("T")

#: Sent with each request, so that all peers sample alike, whatever their defaults are.
SAMPLING = {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.0, "repeat_penalty": 1.0}


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    delta: Delta | None = None

    def piece(self) -> str:
        return self.text or (self.delta.content if self.delta else None) or ""


class Chunk(msgspec.Struct):
    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_chunks = msgspec.json.Decoder(Chunk)


class _ClosedMeanwhile(Failed):
    """The connection ended before anything of the answer came."""


class Connection(asyncio.Protocol):
    """Keeps one connection open and has one request on it at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transport: asyncio.WriteTransport | None = None
        self._response = Response()
        self._exchange = Exchange(0)
        self._done: asyncio.Future[None] | None = None
        self._lost = asyncio.Event()

    # ---- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._lost.clear()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        try:
            for event in self._response.feed(data):
                self._take(event, now)
        except Exception as error:
            self._finish(error)
            return
        if self._response.complete:
            self._answered(now)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost.set()
        self._response.close()
        if self._response.complete:
            self._answered(time.perf_counter())
        else:
            kind = Failed if self._response.has_begun else _ClosedMeanwhile
            self._finish(kind(f"The server closed the connection: {error or 'the answer is not whole'}"))

    # ---- the caller's side ----------------------------------------------------------------------------------------

    async def stream(self, path: str, body: dict[str, Any], exchange: Exchange | None = None) -> Exchange:
        """POST that is answered by events. An exchange that is given fills up meanwhile, so that the part which came
        is there when the caller stops waiting. Raises Refused for a 400, Failed for what else goes wrong."""
        body = {"model": self._client.model, "stream": True, "stream_options": {"include_usage": True}, **body}
        self._exchange = exchange or Exchange(0)
        await self._send(path, body)
        if not self._exchange.completion_tokens:
            raise Failed(f"{path} ended without usage")
        return self._exchange

    async def post(self, path: str, body: dict[str, Any]) -> tuple[Exchange, bytes]:
        """POST that is answered by one body."""
        self._exchange = Exchange(0)
        await self._send(path, {"model": self._client.model, **body})
        return self._exchange, bytes(self._response.body)

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            await self._lost.wait()

    async def _send(self, path: str, body: dict[str, Any]) -> None:
        message, is_kept = self._client.message(path, body), self._transport is not None
        try:
            await self._answer_to(path, message)
        except _ClosedMeanwhile:
            if not is_kept:
                raise
            await self._answer_to(path, message)  # the server had closed what it had kept open, which it may
        self._check_status(path)

    async def _answer_to(self, path: str, message: bytes) -> None:
        if self._transport is None:
            await asyncio.get_running_loop().create_connection(lambda: self, self._client.host, self._client.port)
        assert self._transport is not None
        self._response, self._done = Response(), asyncio.get_running_loop().create_future()
        self._exchange.begun = time.perf_counter()
        self._transport.write(message)
        try:
            await asyncio.wait_for(self._done, self._client.timeout_s)
        except TimeoutError:
            raise Failed(f"{path} was not answered in {self._client.timeout_s:g} s") from None

    def _check_status(self, path: str) -> None:
        if (status := self._response.status) != 200:
            text = bytes(self._response.body).decode(errors="replace")[:300]
            raise (Refused if status == 400 else Failed)(f"{path} answered {status}: {text}")

    def _take(self, event: bytes, now: float) -> None:
        if event == b"[DONE]":
            return
        chunk = _chunks.decode(event)
        if chunk.error is not None:
            raise Failed(str(chunk.error))
        if chunk.usage is not None:
            # llama-server tells it once for each choice
            self._exchange.prompt_tokens = max(self._exchange.prompt_tokens, chunk.usage.prompt_tokens)
            self._exchange.completion_tokens += chunk.usage.completion_tokens
        for choice in chunk.choices:
            if piece := choice.piece():
                self._exchange.piece(choice.index, now)
                self._exchange.text += piece

    def _answered(self, now: float) -> None:
        if self._done is not None and not self._done.done():
            self._exchange.ended = now
        self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)


class Client:
    """Where a server is and how to talk to it. `timeout_s` bounds each request."""

    def __init__(self, host: str, port: int, model: str, key: str | None = None, timeout_s: float = 300) -> None:
        self.host, self.port, self.model, self.timeout_s = host, port, model, timeout_s
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = f"Host: {host}:{port}\r\n{authorization}Content-Type: application/json\r\n"

    def message(self, path: str, body: dict[str, Any]) -> bytes:
        data = msgspec.json.encode(body)
        return f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        connection = Connection(self)
        try:
            yield connection
        finally:
            await connection.close()


def completion(prompt: str | list[int], max_tokens: int, **more: Any) -> dict[str, Any]:
    """A body for /v1/completions that is answered with exactly `max_tokens` tokens."""
    return {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, **SAMPLING, **more}


async def together(work: list[Coroutine[Any, Any, T]]) -> list[T]:
    """All of it at once; when one part fails, the rest is cancelled and its error raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def on_connections(
    client: Client, count: int, work: Callable[[Connection, int], Awaitable[list[Exchange]]]
) -> list[Exchange]:
    """`work(connection, number)` for each of `count` clients at the same time, each on a connection of its own."""

    async def one(number: int) -> list[Exchange]:
        async with client.connection() as connection:
            return await work(connection, number)

    parts = await together([one(number) for number in range(count)])
    return [exchange for part in parts for exchange in part]


async def closed_loop(client: Client, job: Job) -> list[Exchange]:
    """Each client of the job sends its next request when its last has been answered."""

    async def send(connection: Connection, number: int) -> list[Exchange]:
        bodies = [completion(prompt, job.max_tokens) for prompt in job.clients[number]]
        return [await connection.stream("/v1/completions", body) for body in bodies]

    return await on_connections(client, len(job.clients), send)
