"""JSON as RFC 8259 has it and no more.

The standard library's parser does the work because it hands over every name and number as it reads them: duplicate
names, NaN and infinities can be refused while parsing. msgspec, which keeps the last of two equal names silently,
would need a second pass over the names. Measured on one core: 4 microseconds for a request of 1 kB (msgspec 1),
0.8 ms for a conversation of 100 messages and 40 kB, 3 ms for 1 MB of text.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

from inferno import errors

MAX_DEPTH = 64

#: A string, closed or not; possessive, so that no input makes it look twice at a byte.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STEP = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> Any:
    """The value in `data`: UTF-8 without a byte order mark, nested at most 64 deep, no duplicate names, no NaN or
    infinities, no lone surrogates, no integers beyond 4300 digits. Raises InvalidRequest."""
    if _is_deep(data):
        raise errors.InvalidRequest(f"The body is nested more than {MAX_DEPTH} deep.")
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise errors.InvalidRequest("The body is not UTF-8.") from None
    except ValueError as error:
        raise errors.InvalidRequest(f"The body is not valid JSON: {_reason(error)}.") from None
    if _ESCAPED_SURROGATE.search(data):
        _refuse_lone_surrogates(value)
    return value


def _is_deep(data: bytes) -> bool:
    """True when brackets outside strings are ever more than MAX_DEPTH deep. Linear, and done before parsing."""
    if len(data.translate(None, _NOT_BRACKETS)) <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at position {error.pos}"
    return str(error) if isinstance(error, _Strict) else "a number has too many digits"


class _Strict(ValueError):
    """What the standard library would let pass."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Strict("a name occurs twice in an object")
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
