"""`response_format`, which OpenAI's clients send and every text route takes: what the text must be."""

from __future__ import annotations

from typing import Any

import msgspec

from inferno.server.body import Body

_ANY_OBJECT: dict[str, Any] = {"type": "object"}


class ResponseFormat(msgspec.Struct, frozen=True):
    """A JSON Schema, and where it stands in the body."""

    schema: dict[str, Any]
    path: str


def parse(body: Body) -> ResponseFormat | None:
    """None when any text will do. `strict` and the names are checked and no more: a schema always binds."""
    wanted = body.object("response_format")
    kind = "text" if wanted is None else wanted.text("type")
    if wanted is None or kind == "text":
        return None
    for other in ("json_schema", "grammar"):
        if body.has(other):
            body.refuse("response_format", f"left out when there is {other}")
    if kind == "json_object":
        return ResponseFormat(_ANY_OBJECT, body.name("response_format"))
    if kind != "json_schema":
        wanted.refuse("type", "text, json_object or json_schema")
    return _given_schema(wanted)


def _given_schema(wanted: Body) -> ResponseFormat:
    given = wanted.object("json_schema")
    if given is None:
        wanted.refuse("json_schema", "an object")
    given.text("name", "")
    given.text("description", "")
    given.flag("strict")
    schema = given.raw("schema")
    if not isinstance(schema, dict):
        given.refuse("schema", "an object")
    return ResponseFormat(schema, given.name("schema"))
