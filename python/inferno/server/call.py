"""One HTTP call as the handlers see it, and an answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from inferno import errors
from inferno.identity.callers import Caller
from inferno.identity.limits import Admission
from inferno.server.address import client_address
from inferno.server.body import Body, read_body
from inferno.server.services import Services
from inferno.server.strict_json import parse_json
from inferno.telemetry.origin import Origin

#: Where the scope has the request's id.
REQUEST_ID = "inferno.request_id"
#: The largest body of whoever is not known yet: a login has a few hundred bytes.
PUBLIC_BODY_BYTES = 16 * 1024

T = TypeVar("T")


class ClientLeft(ClientDisconnect, ConnectionError):
    """The client has hung up, as sending to it has shown."""


class SlowReader(ConnectionError):
    """The client is there but has not read for too long."""


class Call:
    """`caller` is None on public routes, `admission` where nothing is limited."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        services: Services,
        caller: Caller | None = None,
        admission: Admission | None = None,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.services = services
        self.caller = caller
        self.admission = admission
        self.headers = Headers(scope=scope)
        #: Set by who writes a stream, before its last bytes: from then on a "disconnect" is only the end.
        self.answered = False

    @property
    def known_caller(self) -> Caller:
        """Requires: the route is not public."""
        assert self.caller is not None
        return self.caller

    @property
    def address(self) -> str:
        """The client's, without its port."""
        return client_address(self.scope, self.services.settings.server.trusted_proxies)

    @property
    def path_params(self) -> dict[str, str]:
        params: dict[str, str] = self.scope["path_params"]
        return params

    @property
    def origin(self) -> Origin:
        """Requires: the route is not public."""
        return self.origin_of(self.known_caller, self.scope[REQUEST_ID])

    def origin_of(self, caller: Caller, request_id: str) -> Origin:
        """Of one request of several that come with these headers. A header that comes twice is joined as HTTP says,
        which makes a second `traceparent` no traceparent."""
        return Origin(
            user_id=caller.user_id,
            request_id=request_id,
            traceparent=",".join(self.headers.getlist("traceparent")),
            tracestate=",".join(self.headers.getlist("tracestate")),
        )

    def query_integer(self, name: str, default: int, low: int, high: int) -> int:
        """A number of the query string. Raises InvalidRequest naming it."""
        text = QueryParams(self.scope["query_string"]).get(name)
        if text is None:
            return default
        value = int(text) if re.fullmatch("[0-9]{1,18}", text) else -1
        if not low <= value <= high:
            raise errors.InvalidRequest(f"{name} must be an integer of at least {low} and at most {high}.", field=name)
        return value

    async def body(self) -> Body:
        """The JSON object of the request. Raises InvalidRequest, PayloadTooLarge, UnsupportedMediaType."""
        return Body(await self.json())

    async def json(self) -> Any:
        """The JSON value of the request, None for an empty body."""
        data = await read_body(self.scope, self.receive, self._max_body_bytes)
        return parse_json(data) if data.strip() else None

    @property
    def _max_body_bytes(self) -> int:
        most = self.services.settings.server.max_body_bytes
        return min(most, PUBLIC_BODY_BYTES) if self.caller is None else most

    async def unless_disconnected(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled when the client goes away; raises ClientDisconnect then.

        Requires: the body has been read.
        """
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._disconnected())
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not self.answered:
                raise ClientDisconnect
            return await task
        finally:
            for running in (task, watch):
                running.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    async def _disconnected(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


class Answer(msgspec.Struct, frozen=True):
    """A response that is not streamed. `content` is bytes, or a value to be encoded as JSON."""

    content: Any
    status: int = 200
    media_type: str = "application/json"
    headers: dict[str, str] = {}

    async def write(self, send: Send, *, head: bool = False) -> None:
        """Write headers and body, or for `head` the headers that the body would have."""
        data = self.content if isinstance(self.content, bytes) else msgspec.json.encode(self.content)
        described = {"content-type": self.media_type, "content-length": str(len(data))} if self.status != 204 else {}
        raw = {**described, "cache-control": "no-store", **self.headers}
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in raw.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else data})


#: A handler answers, or has streamed its answer itself and returns None.
Handler = Callable[[Call], Awaitable[Answer | None]]
