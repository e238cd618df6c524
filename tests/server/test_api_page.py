"""docs/api.md says what the tables say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from inferno import _core
from inferno.server.dialects import native, openai, openai_chat, openai_completions
from inferno.server.errors import STATUS
from inferno.server.routes import route_table
from inferno.server.schemas import components

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
UNSUPPORTED = [native._UNSUPPORTED, openai.UNSUPPORTED, openai_chat._UNSUPPORTED, openai_completions._UNSUPPORTED]


@pytest.mark.parametrize("field", sorted({field for table in UNSUPPORTED for field in table}))
def test_every_unsupported_field_is_named(field: str) -> None:
    assert f"`{field}`" in PAGE


@pytest.mark.parametrize("row", _core.sampling_fields(), ids=lambda row: row["name"])
def test_every_sampling_field_is_named(row: _core.FieldRow) -> None:
    assert f"`{row['name']}`" in PAGE


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k", "min_p", "repeat_penalty"])
def test_defaults_are_the_real_ones(field: str) -> None:
    schemas = components()
    defaults = [schemas[name]["properties"][field]["default"] for name in ("Inference", "ChatCompletion", "Completion")]
    assert f"| `{field}` | " + " | ".join(str(default) for default in defaults) + " |" in PAGE


@pytest.mark.parametrize(("code", "status"), STATUS.items())
def test_every_code_has_its_row(code: str, status: int) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {status} |")]
    assert f"`{code}`" in row


def test_every_route_is_named() -> None:
    for route in route_table():
        path = re.sub(r"{[\w:]+}", "{id}", route.path)
        assert f"{path}`" in PAGE or f"{path.removeprefix('/v1')}`" in PAGE
