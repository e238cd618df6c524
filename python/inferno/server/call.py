"""One HTTP call as the handlers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from inferno.identity.keys import Caller
from inferno.server.body import Body, parse_json, read_body
from inferno.server.services import Services

T = TypeVar("T")


class Call:
    """`caller` is None on public routes. `request_id` is also the `X-Request-ID` of the answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, services: Services, caller: Caller | None) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.services = services
        self.caller = caller
        self.headers = Headers(scope=scope)

    @property
    def path_params(self) -> dict[str, str]:
        params: dict[str, str] = self.scope["path_params"]
        return params

    async def body(self) -> Body:
        """The JSON object of the request. Raises InvalidRequest, PayloadTooLarge, UnsupportedMediaType."""
        return Body(await self.json())

    async def json(self) -> Any:
        """The JSON value of the request, None for an empty body."""
        data = await read_body(self.scope, self.receive, self.services.settings.server.max_body_bytes)
        return parse_json(data) if data.strip() else None

    async def disconnected(self) -> None:
        """Return when the client has gone. Requires: the body has been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def unless_disconnected(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled when the client goes away; raises ClientDisconnect then."""
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self.disconnected())
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientDisconnect
            return task.result()
        finally:
            for running in (task, watch):
                running.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)


class Answer(msgspec.Struct, frozen=True):
    """A response that is not streamed."""

    content: Any
    status: int = 200
    media_type: str = "application/json"
    headers: dict[str, str] = {}

    async def write(self, send: Send, *, head: bool = False) -> None:
        data = self.content if isinstance(self.content, bytes) else msgspec.json.encode(self.content)
        raw = {"content-type": self.media_type, "content-length": str(len(data)), **self.headers}
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in raw.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else data})


#: A handler answers, or has streamed its answer itself and returns None.
Handler = Callable[[Call], Awaitable[Answer | None]]
