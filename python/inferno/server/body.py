"""Request bodies: read under limits, taken apart by typed reads that name the field at fault."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Set
from typing import Any, NoReturn

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from inferno import errors


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """All of the body. Raises PayloadTooLarge as soon as it is known to pass the limit, UnsupportedMediaType before
    anything is read, ClientDisconnect."""
    _check_headers(Headers(scope=scope), limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
    return b"".join(chunks)


def _check_headers(headers: Headers, limit: int) -> None:
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise errors.UnsupportedMediaType("Compressed request bodies are not accepted.")
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    has_body = length != "0" or "transfer-encoding" in headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and media_type not in ("", "application/json"):
        raise errors.UnsupportedMediaType("The body must be application/json.")


def _too_large(limit: int) -> errors.PayloadTooLarge:
    return errors.PayloadTooLarge(f"The body is larger than {limit} bytes.", limit=limit)


class Body:
    """An object of a request, read field by field. `path` is where it stands in the body; null is absent."""

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise errors.InvalidRequest(f"{path or 'The body'} must be an object.", field=path or None)
        self._fields: Mapping[str, Any] = value
        self._path = path

    def name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def refuse(self, key: str, expected: str) -> NoReturn:
        raise errors.InvalidRequest(f"{self.name(key)} must be {expected}.", field=self.name(key))

    @property
    def fields(self) -> dict[str, Any]:
        """All that is given, as it is."""
        return {key: value for key, value in self._fields.items() if value is not None}

    def raw(self, key: str) -> Any:
        return self._fields.get(key)

    def has(self, key: str) -> bool:
        return self._fields.get(key) is not None

    def only(self, keys: Set[str]) -> dict[str, Any]:
        """The fields among `keys` that are given, not yet checked."""
        return {key: value for key, value in self._fields.items() if key in keys and value is not None}

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required unless there is a default."""
        value = self._fields.get(key)
        if value is None:
            return self._required(key) if default is None else default
        if not isinstance(value, str):
            self.refuse(key, "a string")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._fields.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number, which may be written as 3.0."""
        value = self._fields.get(key)
        if value is None:
            return default
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        if not whole or not low <= value <= high:
            self.refuse(key, f"an integer of at least {low} and at most {high}")
        return int(value)

    def number(self, key: str) -> float:
        """A required number, finite as a float."""
        value = self._fields.get(key)
        if value is None:
            self._required(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > sys.float_info.max:
            self.refuse(key, "a finite number")
        return float(value)

    def items(self, key: str, limit: int) -> list[Any]:
        """A required list that is not empty."""
        value = self._fields.get(key)
        if value is None:
            self._required(key)
        if not isinstance(value, list) or not 1 <= len(value) <= limit:
            self.refuse(key, f"a list of 1 to {limit} items")
        return value

    def object(self, key: str) -> Body | None:
        value = self._fields.get(key)
        return None if value is None else Body(value, self.name(key))

    def table(self, key: str) -> dict[str, Any]:
        """An object whose names are the client's; empty when it is absent."""
        value = self._fields.get(key)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, "an object")
        return dict(value or {})

    def _required(self, key: str) -> NoReturn:
        raise errors.InvalidRequest(f"{self.name(key)} is required.", field=self.name(key))
