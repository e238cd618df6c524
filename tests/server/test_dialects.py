"""Each sampling field is mapped, or refused, in every dialect; none is dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from inferno import _core
from inferno.request import Request
from inferno.server.body import Body
from inferno.server.dialects import native, openai_chat, openai_completions

from tests.server.conftest import CHAT, PROMPT

#: A value of each type that is no default.
VALUES: dict[str, Any] = {
    "integer": 3,
    "number": 0.5,
    "boolean": True,
    "string": 'root ::= "a"',
    "strings": ["x"],
    "integers": [5],
    "token_biases": {"5": 1.5},
    "json": {"type": "integer"},
}
DIALECTS: dict[str, tuple[Callable[[Body], Request], dict[str, Any]]] = {
    "native": (native.parse, PROMPT),
    "chat": (openai_chat.parse, CHAT),
    "completions": (openai_completions.parse, PROMPT),
}
#: Where a dialect spells a field in its own way.
SPELT: dict[tuple[str, str], dict[str, Any]] = {("chat", "logprobs"): {"logprobs": True, "top_logprobs": 3}}


@pytest.mark.acceptance("I1", "O2")
@pytest.mark.parametrize("row", _core.sampling_fields(), ids=lambda row: row["name"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_sampling_field_reaches_the_request(dialect: str, row: _core.FieldRow) -> None:
    parse, base = DIALECTS[dialect]
    value = VALUES[row["type"]]
    fields = SPELT.get((dialect, row["name"]), {row["name"]: value})
    assert (
        parse(Body({**base, **fields})).sampling[row["name"]]
        == _core.validate_sampling({row["name"]: value})[row["name"]]
    )


@pytest.mark.parametrize("row", _core.sampling_fields(), ids=lambda row: row["name"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_null_is_the_dialects_default(dialect: str, row: _core.FieldRow) -> None:
    parse, base = DIALECTS[dialect]
    assert parse(Body({**base, row["name"]: None})).sampling == parse(Body(base)).sampling


@pytest.mark.acceptance("G5")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_unheard_of_fields_are_ignored(dialect: str) -> None:
    parse, base = DIALECTS[dialect]
    assert parse(Body({**base, "unheard_of": {"a": 1}})).sampling == parse(Body(base)).sampling
