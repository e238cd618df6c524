"""A socket that answers HTTP requests as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from benchmarks.client import Client

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def stream(*chunks: dict[str, Any]) -> bytes:
    events = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
    pieces = [*events, b"data: [DONE]\n\n", b""]
    return HEAD + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def text(piece: str, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "text": piece, "finish_reason": None}], "usage": None}


class Server:
    """Answers each request with the next of the answers; an empty one closes the connection."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.bodies: list[Any] = []
        self.heads: list[str] = []
        self.connections = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while self._answers:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
                self.heads.append(head)
                self.bodies.append(json.loads(await reader.readexactly(length)))
                answer = self._answers.pop(0)
                writer.write(answer)
                if not answer:
                    break


def run(server: Server, work: Callable[[Client], Any], **options: Any) -> Any:
    async def main() -> Any:
        listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            return await work(Client("127.0.0.1", port, "a-model", **{"key": "a-key", **options}))

    return asyncio.run(main())


def status(code: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body)
