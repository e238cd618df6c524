"""A route at work: it admits the caller, calls the handler and writes the answer."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import parse_qsl

from starlette.routing import Match, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from inferno import errors
from inferno.identity.authentication import presented_credential
from inferno.identity.callers import Caller
from inferno.server.call import Answer, Call
from inferno.server.rate_limit import ADMISSION
from inferno.server.route import RouteSpec, SocketSpec
from inferno.server.services import Services


def endpoints(specs: Iterable[RouteSpec], services: Services) -> list[Endpoint]:
    """One endpoint for each spec, in order; each knows all methods of its path."""
    specs = tuple(specs)
    methods: dict[str, set[str]] = defaultdict(lambda: {"OPTIONS"})
    for spec in specs:
        methods[spec.path] |= {spec.method, "HEAD"} if spec.method == "GET" else {spec.method}
    return [Endpoint(spec, services, ", ".join(sorted(methods[spec.path]))) for spec in specs]


#: Query parameters that people put keys into. An address ends up in logs and histories.
_CREDENTIALS_IN_QUERY = frozenset({"token", "access_token", "auth", "authorization", "key", "api_key", "apikey", "jwt"})


class Endpoint(Route):
    """`allow` names every method of the path. A method that no route of the path takes ends here too: Starlette
    hands it to the first of them."""

    def __init__(self, spec: RouteSpec, services: Services, allow: str) -> None:
        super().__init__(spec.path, spec.handler, methods=[spec.method])
        self.spec = spec
        self._services = services
        self._allow = allow

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method == "OPTIONS":
            await Answer(b"", 204, headers={"Allow": self._allow}).write(send)
        elif self.methods is not None and method not in self.methods:
            raise errors.MethodNotAllowed(f"Use {self._allow} here.", allow=self._allow)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send, self._services)
        if self._is_public:
            await self._answer(call)
            return
        call.caller = await authenticated(self._services, presented_credential(call.headers), call.address)
        if self.spec.permission != "authenticated":
            call.caller.require(self.spec.permission)
        if not self.spec.limited:
            await self._answer(call)
            return
        async with self._services.limiter.admit(call.caller.subject, call.caller.limits) as call.admission:
            scope[ADMISSION] = call.admission
            await self._answer(call)

    async def _answer(self, call: Call) -> None:
        answer = await self.spec.handler(call)
        if answer is not None:
            await answer.write(call.send, head=call.scope["method"] == "HEAD")

    @property
    def _is_public(self) -> bool:
        is_metrics = self.spec.path in ("/metrics", "/v1/metrics")
        public_metrics = is_metrics and self._services.settings.server.metrics_public
        return self.spec.permission == "public" or public_metrics


class Socket(WebSocketRoute):
    """A WebSocket route at work: what can be refused before the handshake is refused there, with a status."""

    def __init__(self, spec: SocketSpec, services: Services) -> None:
        super().__init__(spec.path, spec.handler)
        self.spec = spec
        self._services = services

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Plain requests too, so that they are told what is here."""
        return super().matches({**scope, "type": "websocket"} if scope["type"] == "http" else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raise errors.InvalidRequest("This is a WebSocket; open it with a handshake.", field="Upgrade")
        if self._services.draining.is_set():
            raise errors.ServiceUnavailable("The server is shutting down.", retry_after=5)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name.lower() in _CREDENTIALS_IN_QUERY for name, _ in query):
            raise errors.AuthenticationFailed("Credentials do not belong in the address; send them in a header.")
        call = Call(scope, receive, send, self._services)
        if self._says_who(call):
            call.caller = await self._admit(call, presented_credential(call.headers))
        await self.spec.handler(call, functools.partial(self._admit, call))

    def _says_who(self, call: Call) -> bool:
        """Else the first message has to. On a server without authentication nobody need."""
        named = "authorization" in call.headers or "x-api-key" in call.headers
        return named or not self._services.settings.auth.enabled

    async def _admit(self, call: Call, credential: str | None) -> Caller:
        caller = await authenticated(self._services, credential, call.address)
        caller.require(self.spec.permission)
        return caller


async def authenticated(services: Services, credential: str | None, address: str) -> Caller:
    """Raises AuthenticationFailed; Exceeded instead, for an address that goes on trying."""
    try:
        return await services.authenticator.authenticate(credential, address)
    except errors.AuthenticationFailed:
        await services.limiter.count_refusal(address)
        raise
