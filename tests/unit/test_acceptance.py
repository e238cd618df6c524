"""Every statement of the acceptance list is proved by a test, and docs/acceptance.md says by which."""

from __future__ import annotations

import ast

import pytest

from tests import acceptance

PROOFS = acceptance.proofs()


def test_the_page_is_current() -> None:
    told = "run python -m tests.acceptance"
    assert acceptance.PAGE.read_text() == acceptance.page(PROOFS), told


@pytest.mark.parametrize("statement", acceptance.statements(), ids=lambda statement: statement.number)
def test_every_statement_has_a_proof_and_a_place(statement: acceptance.Statement) -> None:
    assert PROOFS.get(statement.number)
    for place in statement.holds:
        assert (acceptance.ROOT / place).exists()


def test_every_marker_names_a_statement() -> None:
    numbers = [statement.number for statement in acceptance.statements()]
    assert len(set(numbers)) == len(numbers)
    assert PROOFS.keys() - set(numbers) == set()


def found(source: str) -> dict[str, list[str]]:
    return dict(acceptance.marked(ast.parse(source), "f.py"))


def test_where_markers_are_found() -> None:
    source = """
pytestmark = [pytest.mark.anyio, pytest.mark.acceptance("K1")]

@pytest.mark.slow
@pytest.mark.acceptance("G1", "G2")
def test_a(): ...

@pytest.mark.parametrize("x", [1])
async def test_b(x): ...

def helper(): ...
"""
    assert found(source) == {"test_a": ["K1", "G1", "G2"], "test_b": ["K1"]}


@pytest.mark.parametrize(
    "source",
    [
        '@pytest.mark.acceptance("G1")\ndef helper(): ...',
        '@pytest.mark.acceptance("G1")\nclass Test: ...',
        'marks = pytest.mark.acceptance("G1")',
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.acceptance("G1"))])\ndef helper(x): ...',
        "@pytest.mark.acceptance()\ndef test_a(): ...",
        "@pytest.mark.acceptance(1)\ndef test_a(): ...",
        "@pytest.mark.acceptance(NUMBER)\ndef test_a(): ...",
    ],
)
def test_markers_that_nobody_would_count(source: str) -> None:
    with pytest.raises(ValueError, match=r"f\.py"):
        found(source)


def test_what_is_not_proved_is_told() -> None:
    statement = acceptance.Statement("Z9", "Nothing", ["tests"], "")
    assert acceptance._state(statement, []) == "not proved"
    by_examples = [acceptance.Test("examples/test_http.py", "test_x")]
    assert acceptance._state(statement, by_examples) == "proved by examples"
    lacking = statement._replace(lacking="half of it")
    assert acceptance._state(lacking, [acceptance.Test("unit/test_x.py", "test_x")]) == "proved, but for: half of it"
