"""A route at work: it admits the caller, calls the handler and writes the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from inferno import errors
from inferno.identity.keys import Caller
from inferno.server.call import Answer, Call
from inferno.server.route import RouteSpec
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
        is_metrics = self.spec.path in ("/metrics", "/v1/metrics")
        public_metrics = is_metrics and self._services.settings.server.metrics_public
        if permission == "public" or public_metrics:
            return None
        caller = self._services.keys.authenticate(headers)
        if permission not in caller.permissions:
            raise errors.AuthorizationFailed(f"The key lacks the permission {permission}.", permission=permission)
        return caller
