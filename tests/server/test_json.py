"""Strict JSON (T40), and the typed reads of a body."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from inferno import errors
from inferno.server.body import Body
from inferno.server.strict_json import MAX_DEPTH, parse_json

BAD_JSON: dict[str, bytes] = {
    "cut off": b'{"a": ',
    "trailing garbage": b"{} x",
    "two values": b"{}{}",
    "trailing comma": b'{"a": 1,}',
    "comment": b"{} // x",
    "single quotes": b"{'a': 1}",
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "infinite by exponent": b'{"a": 1e999}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "leading zero": b'{"a": 01}',
    "duplicate names": b'{"a": 1, "a": 2}',
    "duplicate names, spelt differently": b'{"a": 1, "\\u0061": 2}',
    "duplicate names, deeper": b'{"x": [{"a": 1, "a": 2}]}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "lone surrogate in a name": b'{"\\udfff": 1}',
    "surrogates in the wrong order": b'{"a": "\\ude00\\ud83d"}',
    "raw surrogate bytes": b'{"a": "\xed\xa0\x80"}',
    "latin-1": b'{"a": "\xe9"}',
    "overlong": b'{"a": "\xc0\xaf"}',
    "control character": b'{"a": "\x01"}',
    "bare newline": b'{"a": "\n"}',
    "bad escape": b'{"a": "\\x41"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "utf-16 without mark": '{"a": 1}'.encode("utf-16-le"),
    "utf-32": '{"a": 1}'.encode("utf-32"),
    "nul": b"{}\x00",
    "65 deep": b"[" * 65 + b"]" * 65,
    "65 deep, mixed": b'{"a":[' * 33 + b"]}" * 33,
    "100,000 deep": b"[" * 100_000,
    "100,000 deep, closed": b"[" * 100_000 + b"]" * 100_000,
    "100,000 deep objects": b'{"a":' * 100_000,
    "brackets crossed": b"[{" * 40 + b"]}" * 40,
    "unclosed string with brackets": b'{"a": "' + b"[" * 100,
}


@pytest.mark.acceptance("G4", "S6")
@pytest.mark.parametrize("data", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_is_refused(data: bytes) -> None:
    with pytest.raises(errors.InvalidRequest):
        parse_json(data)


GOOD: list[Any] = [
    {},
    [],
    {"a": [1, -2, 3.5, 1e300, True, None, "x"]},
    {"text": 'brackets [[[[ and "quotes" \\ and {{{{' * 20},
    {"emoji": "😀", "escaped quote": '\\"[', "backslashes": "\\\\"},
    {"many": [[], {}] * 1000},
    {"digits": 10**4000},
]


@pytest.mark.parametrize("value", GOOD, ids=lambda value: str(value)[:20] if value != GOOD[-1] else "digits")
@pytest.mark.parametrize("ascii_only", [True, False])
def test_good_json_is_read_as_it_is(value: Any, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(("opened", "closed"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_64_deep_is_allowed(opened: bytes, closed: bytes) -> None:
    inner = b"1" if opened != b"[" else b""
    parse_json(opened * MAX_DEPTH + inner + closed * MAX_DEPTH)


HOSTILE = [
    b"[" * 4_000_000,
    b"[]" * 2_000_000,
    b'"\\' * 2_000_000 + b"[" * 100,
    b'"' + b'\\"' * 2_000_000 + b"[" * 100,
    b"[" * 64 + b"," * 4_000_000,
]


@pytest.mark.acceptance("S6")
@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:4]))
def test_hostile_bodies_take_linear_time(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(errors.InvalidRequest):
        parse_json(data)
    assert time.process_time() - began < 2


READS: list[tuple[str, Any, Callable[[Body], object], str]] = [
    ("text", 1, lambda body: body.text("k"), "k must be a string"),
    ("required", None, lambda body: body.text("k"), "k is required"),
    ("flag", 1, lambda body: body.flag("k"), "k must be true or false"),
    (
        "bool as integer",
        True,
        lambda body: body.integer("k", 1, 0, 2),
        "k must be an integer of at least 0 and at most 2",
    ),
    ("fraction", 1.5, lambda body: body.integer("k", 1, 0, 2), "k must be an integer"),
    ("huge", 1e300, lambda body: body.integer("k", 1, 0, 2), "k must be an integer"),
    ("items", {}, lambda body: body.items("k", 3), "k must be a list of 1 to 3 items"),
    ("object", [], lambda body: body.object("k"), "k must be an object"),
]


@pytest.mark.acceptance("G4")
@pytest.mark.parametrize(("value", "read", "message"), [row[1:] for row in READS], ids=[row[0] for row in READS])
@pytest.mark.parametrize("path", ["", "outer[3]"])
def test_reads_name_the_field(value: Any, read: Callable[[Body], object], message: str, path: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        read(Body({"k": value}, path))
    prefix = f"{path}." if path else ""
    assert caught.value.message.startswith(prefix + message)
    assert caught.value.field == prefix + "k"


def test_null_is_the_default() -> None:
    body = Body({"k": None})
    assert (body.text("k", "d"), body.flag("k", True), body.integer("k", 3, 0, 5), body.object("k")) == (
        "d",
        True,
        3,
        None,
    )
