"""What callers do to the server itself, on record."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from inferno import errors
from inferno.identity import audit
from inferno.server.call import Call


@contextlib.asynccontextmanager
async def audited(call: Call, action: str, target: str) -> AsyncIterator[None]:
    """Record `action` with what came of it: `ok`, or the error's code."""
    result = "ok"
    try:
        yield
    except errors.InfernoError as error:
        result = error.code
        raise
    finally:
        actor, address = call.caller.username if call.caller else "anonymous", call.address
        await call.services.database.write(
            lambda connection: audit.record(connection, actor, action, target=target, result=result, address=address)
        )
