"""A route at work: it admits the caller, calls the handler and writes the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.routing import Match, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from inferno import errors
from inferno.identity.keys import Caller
from inferno.server.call import Answer, Call
from inferno.server.route import Permission, RouteSpec, SocketSpec
from inferno.server.services import Services


def endpoints(specs: Iterable[RouteSpec], services: Services) -> list[Endpoint]:
    """One endpoint for each spec, in order; each knows all methods of its path."""
    specs = tuple(specs)
    methods: dict[str, set[str]] = defaultdict(lambda: {"OPTIONS"})
    for spec in specs:
        methods[spec.path] |= {spec.method, "HEAD"} if spec.method == "GET" else {spec.method}
    return [Endpoint(spec, services, ", ".join(sorted(methods[spec.path]))) for spec in specs]


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
        call = Call(scope, receive, send, self._services, self._admit(Headers(scope=scope)))
        answer = await self.spec.handler(call)
        if answer is not None:
            await answer.write(send, head=scope["method"] == "HEAD")

    def _admit(self, headers: Headers) -> Caller | None:
        """The caller, None on a public route. Raises AuthenticationFailed, AuthorizationFailed."""
        permission = self.spec.permission
        public_metrics = permission == "metrics:read" and self._services.settings.server.metrics_public
        if permission == "public" or public_metrics:
            return None
        return admit(self._services, permission, headers)


#: Query parameters that people put keys into. An address ends up in logs and histories.
_CREDENTIALS_IN_QUERY = frozenset({"token", "access_token", "auth", "authorization", "key", "api_key", "apikey", "jwt"})


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
        call = Call(scope, receive, send, self._services, self._known_caller(Headers(scope=scope)))
        await self.spec.handler(call, self._admit)

    def _known_caller(self, headers: Headers) -> Caller | None:
        """The caller, None when the first message has yet to say who it is. Raises as `admit` does when the headers
        say it, wrongly."""
        try:
            return self._admit(headers)
        except errors.AuthenticationFailed:
            if "authorization" in headers or "x-api-key" in headers:
                raise
            return None

    def _admit(self, headers: Mapping[str, str]) -> Caller:
        return admit(self._services, self.spec.permission, headers)


def admit(services: Services, permission: Permission, headers: Mapping[str, str]) -> Caller:
    """The caller that the headers (with names in lower case) name. Raises AuthenticationFailed, AuthorizationFailed."""
    caller = services.keys.authenticate(headers)
    if permission not in caller.permissions:
        raise errors.AuthorizationFailed(f"The key lacks the permission {permission}.", permission=permission)
    return caller
