"""Request bodies: read under limits, parsed strictly, taken apart by typed reads that name the field at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from inferno import errors

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """All of the body. Raises PayloadTooLarge as soon as the limit is passed, UnsupportedMediaType."""
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    if headers.get(b"content-encoding", "identity") != "identity":
        raise errors.UnsupportedMediaType("Compressed request bodies are not accepted.")
    length = headers.get(b"content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if size and media_type not in ("", "application/json"):
        raise errors.UnsupportedMediaType("The body must be application/json.")
    return b"".join(chunks)


def _too_large(limit: int) -> errors.PayloadTooLarge:
    return errors.PayloadTooLarge(f"The body is larger than {limit} bytes.", limit=limit)


def parse_json(data: bytes) -> Any:
    """JSON as RFC 8259 has it and no more: UTF-8, no duplicate keys, no NaN or infinities, no lone surrogates.

    Raises InvalidRequest. The standard library's parser is used because it can be told about every name and number;
    on a 10 kB body that takes 0.1 ms.
    """
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except RecursionError:
        raise errors.InvalidRequest("The body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise errors.InvalidRequest("The body is not UTF-8.") from None
    except ValueError as error:
        raise errors.InvalidRequest(f"The body is not valid JSON: {_reason(error)}.") from None
    if _ESCAPED_SURROGATE.search(data):
        _refuse_lone_surrogates(value)
    return value


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at position {error.pos}"
    return str(error) if isinstance(error, _Strict) else "a number has too many digits"


class _Strict(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Strict("a key occurs twice in an object")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise _Strict(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Strict("a number is out of range")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise errors.InvalidRequest("The body has text that is not valid Unicode.") from None


class Body:
    """An object of a request, read field by field. `path` is where it stands in the body; null is absent."""

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            name = path or "The body"
            raise errors.InvalidRequest(f"{name} must be an object.", field=path or None)
        self._fields: Mapping[str, Any] = value
        self._path = path

    def name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def refuse(self, key: str, expected: str) -> NoReturn:
        raise errors.InvalidRequest(f"{self.name(key)} must be {expected}.", field=self.name(key))

    def raw(self, key: str) -> Any:
        return self._fields.get(key)

    @property
    def names(self) -> Iterable[str]:
        return self._fields

    def has(self, key: str) -> bool:
        return self._fields.get(key) is not None

    def only(self, keys: frozenset[str]) -> dict[str, Any]:
        """The fields among `keys` that are given, not yet checked."""
        return {key: value for key, value in self._fields.items() if key in keys and value is not None}

    def text(self, key: str, default: str | None = None) -> str:
        value = self._fields.get(key)
        if value is None:
            if default is None:
                raise errors.InvalidRequest(f"{self.name(key)} is required.", field=self.name(key))
            return default
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
        value = self._fields.get(key)
        if value is None:
            return default
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        if not whole or not low <= value <= high:
            self.refuse(key, f"an integer of at least {low} and at most {high}")
        return int(value)

    def items(self, key: str, limit: int) -> list[Any]:
        """A required list that is not empty."""
        value = self._fields.get(key)
        if value is None:
            raise errors.InvalidRequest(f"{self.name(key)} is required.", field=self.name(key))
        if not isinstance(value, list) or not 1 <= len(value) <= limit:
            self.refuse(key, f"a list of 1 to {limit} items")
        return value

    def object(self, key: str) -> Body | None:
        value = self._fields.get(key)
        return None if value is None else Body(value, self.name(key))
