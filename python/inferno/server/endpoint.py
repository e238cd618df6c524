"""A route at work: it admits the caller, calls the handler and writes the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from inferno import errors
from inferno.identity.authentication import presented_credential
from inferno.identity.callers import Caller
from inferno.server.call import Answer, Call
from inferno.server.rate_limit import ADMISSION
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
        call = Call(scope, receive, send, self._services)
        if self._is_public:
            await self._answer(call)
            return
        call.caller = await self._authenticated(call)
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

    async def _authenticated(self, call: Call) -> Caller:
        """Raises AuthenticationFailed; Exceeded instead, for an address that goes on trying."""
        try:
            return await self._services.authenticator.authenticate(presented_credential(call.headers), call.address)
        except errors.AuthenticationFailed:
            await self._services.limiter.count_refusal(call.address)
            raise
