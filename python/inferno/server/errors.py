"""Error codes -> statuses and bodies. The only place that knows both."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

from inferno import errors

STATUS: dict[str, int] = {
    "INVALID_REQUEST": 400,
    "CONTEXT_LENGTH_EXCEEDED": 400,
    "MODEL_NOT_LOADED": 400,
    "AUTHENTICATION_FAILED": 401,
    "AUTHORIZATION_FAILED": 403,
    "NOT_FOUND": 404,
    "MODEL_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "RATE_LIMIT_EXCEEDED": 429,
    "INFERENCE_FAILED": 500,
    "INTERNAL_ERROR": 500,
    "TIMEOUT": 503,
    "SERVICE_UNAVAILABLE": 503,
}

#: All that a client learns of a bug of ours; the log has the rest.
UNEXPECTED = "Something went wrong inside the server."
#: OpenAI's `type` for a status.
_OPENAI_TYPE = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def timestamp() -> str:
    """Now, ISO 8601 with Z and whole seconds."""
    return iso(time.time())


def iso(seconds: float) -> str:
    """A time in UTC seconds since 1970 as ISO 8601 with Z and whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def envelope(error: errors.InfernoError, request_id: str, *, openai: bool) -> dict[str, Any]:
    """The API document's error body; on OpenAI routes with that API's `type` and `param` beside it."""
    inner: dict[str, Any] = {"code": error.code, "message": error.message, "details": error.details}
    if error.code == "RATE_LIMIT_EXCEEDED":
        inner["retry_after"] = error.details.get("retry_after", 1)
    if openai:
        inner |= openai_error(error)
    return {"error": inner, "request_id": request_id, "timestamp": timestamp()}


def openai_error(error: errors.InfernoError) -> dict[str, Any]:
    """OpenAI's four keys; `code` is the API document's."""
    status = STATUS[error.code]
    kind = _OPENAI_TYPE.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": error.message, "type": kind, "param": error.details.get("field"), "code": error.code}


def headers(error: errors.InfernoError) -> dict[str, str]:
    """Headers that an error brings with it."""
    result: dict[str, str] = {}
    if error.code == "AUTHENTICATION_FAILED":
        result["WWW-Authenticate"] = "Bearer"
    if STATUS[error.code] in (429, 503):
        result["Retry-After"] = str(math.ceil(error.details.get("retry_after", 1)))
    if error.code == "TIMEOUT":
        result["X-Should-Retry"] = "false"  # OpenAI's clients would wait for as long again, twice
    if "allow" in error.details:
        result["Allow"] = str(error.details["allow"])
    return result
