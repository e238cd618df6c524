"""The one exception tree. Each class is one error code of the API document.

InfernoError
├── InvalidRequest            INVALID_REQUEST
│   └── ContextLengthExceeded CONTEXT_LENGTH_EXCEEDED
├── AuthenticationFailed      AUTHENTICATION_FAILED
├── AuthorizationFailed       AUTHORIZATION_FAILED
├── NotFound                  NOT_FOUND
│   └── ModelNotFound         MODEL_NOT_FOUND
├── ModelNotLoaded            MODEL_NOT_LOADED
├── RateLimitExceeded         RATE_LIMIT_EXCEEDED
├── MethodNotAllowed          METHOD_NOT_ALLOWED
├── PayloadTooLarge           PAYLOAD_TOO_LARGE
├── UnsupportedMediaType      UNSUPPORTED_MEDIA_TYPE
├── ServiceUnavailable        SERVICE_UNAVAILABLE
├── RequestTimeout            TIMEOUT
├── InferenceFailed           INFERENCE_FAILED
└── InternalError             INTERNAL_ERROR

Nothing here knows HTTP: one table in `inferno.server.errors` maps codes to statuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class InfernoError(Exception):
    """Root of every error that Inferno raises on purpose.

    `message` is safe to show to a client: it names ids and fields, never paths or addresses.
    `details` is a JSON-serialisable mapping with machine-readable facts.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details

    def to_dict(self) -> dict[str, Any]:
        """`{code, message, details}`, the form that crosses process borders."""
        return {"code": self.code, "message": self.message, "details": self.details}


class InvalidRequest(InfernoError):
    """The caller's mistake. `field` is the path of the offending field, as in `messages[0].content`."""

    code = "INVALID_REQUEST"

    def __init__(self, message: str, *, field: str | None = None, **details: Any) -> None:
        if field is not None:
            details = {"field": field, **details}
        super().__init__(message, **details)

    @property
    def field(self) -> str | None:
        return self.details.get("field")


class ContextLengthExceeded(InvalidRequest):
    """The prompt does not fit the context; details carry `prompt_tokens`, or the least there can be of what is far too
    long, and `context_size`."""

    code = "CONTEXT_LENGTH_EXCEEDED"


class AuthenticationFailed(InfernoError):
    code = "AUTHENTICATION_FAILED"


class AuthorizationFailed(InfernoError):
    code = "AUTHORIZATION_FAILED"


class NotFound(InfernoError):
    code = "NOT_FOUND"


class ModelNotFound(NotFound):
    """No model of that id; details carry `available_models`."""

    code = "MODEL_NOT_FOUND"


class ModelNotLoaded(InfernoError):
    code = "MODEL_NOT_LOADED"


class RateLimitExceeded(InfernoError):
    """The caller's own limit; details carry `retry_after` in seconds."""

    code = "RATE_LIMIT_EXCEEDED"


class MethodNotAllowed(InfernoError):
    code = "METHOD_NOT_ALLOWED"


class PayloadTooLarge(InfernoError):
    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(InfernoError):
    code = "UNSUPPORTED_MEDIA_TYPE"


class ServiceUnavailable(InfernoError):
    """Our capacity: queue full, memory, draining, worker restarting; details may carry `retry_after`."""

    code = "SERVICE_UNAVAILABLE"


class RequestTimeout(InfernoError):
    """The request's deadline passed before it finished."""

    code = "TIMEOUT"


class InferenceFailed(InfernoError):
    """The engine failed while it worked on the request."""

    code = "INFERENCE_FAILED"


class InternalError(InfernoError):
    """Our bug."""

    code = "INTERNAL_ERROR"


def _tree(root: type[InfernoError]) -> Iterator[type[InfernoError]]:
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)


BY_CODE: Mapping[str, type[InfernoError]] = {cls.code: cls for cls in _tree(InfernoError)}


def from_dict(error: Mapping[str, Any]) -> InfernoError:
    """Rebuild the exception that `InfernoError.to_dict` described; an unknown code becomes InternalError."""
    cls = BY_CODE.get(str(error.get("code")), InternalError)
    return cls(str(error.get("message", "")), **dict(error.get("details") or {}))
