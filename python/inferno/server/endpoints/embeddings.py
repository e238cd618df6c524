"""POST /embeddings and /v1/embeddings: one shape for both."""

from __future__ import annotations

import msgspec

from inferno.server.call import Answer, Call
from inferno.server.dialects import embeddings as dialect
from inferno.server.inference import reserved


async def embeddings(call: Call) -> Answer:
    body = await call.body()
    query = dialect.parse(body)
    return await call.unless_disconnected(_embed(call, query))


async def _embed(call: Call, query: dialect.Query) -> Answer:
    call.known_caller.require_model(query.request.model)
    timeout_s = call.services.settings.server.request_timeout_s
    request = msgspec.structs.replace(query.request, timeout_s=timeout_s)
    with call.services.observe(request, call.origin) as observed:
        reservation = reserved(call.admission, request.inputs, 0)
        async with reservation as spent, call.services.pool.lease(request.model) as lease:
            observed.admitted()
            query.check_dimensions(lease.engine.info.n_embd)
            result = await lease.engine.embed(request)
            spent.tokens = result.usage.total_tokens
        observed.usage(result.usage)
    return Answer(dialect.render(result, query))
