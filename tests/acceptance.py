"""Which tests prove which statement of the acceptance list.

`acceptance.toml` beside this file has the statements. Tests carry their numbers in `@pytest.mark.acceptance("X1")`, or
a whole module does in `pytestmark`; they are found in the source, so that nothing has to be imported or run.
`python -m tests.acceptance` writes `docs/acceptance.md`, which a test holds to this.
"""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeAlias

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PAGE = ROOT / "docs" / "acceptance.md"
#: Not collected by default: they need other toolchains and a port of their own.
APART = "examples"

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Statement(NamedTuple):
    """`holds` are files or directories of the project; `lacking`, when there is something, is what is not proved."""

    number: str
    says: str
    holds: list[str]
    lacking: str


class Test(NamedTuple):
    """`file` is relative to this directory."""

    file: str
    name: str


def chapters() -> dict[str, list[Statement]]:
    """Title -> statements, in the list's order."""
    data = tomllib.loads((TESTS / "acceptance.toml").read_text())
    return {
        title: [
            Statement(number, row["says"], row["holds"].split(", "), row.get("lacking", ""))
            for number, row in statements.items()
        ]
        for title, statements in data.items()
    }


def statements() -> list[Statement]:
    return [statement for chapter in chapters().values() for statement in chapter]


# ---- finding the markers ----


def proofs() -> dict[str, list[Test]]:
    """Number -> tests that carry it. Raises ValueError for a marker that is on no test or has no plain numbers."""
    found: dict[str, list[Test]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        file = path.relative_to(TESTS).as_posix()
        for name, numbers in marked(ast.parse(path.read_text()), file):
            for number in numbers:
                found[number].append(Test(file, name))
    return dict(found)


def marked(module: ast.Module, file: str) -> Iterator[tuple[str, list[str]]]:
    """Each test of a module that has markers, with their numbers."""
    of_all = [call for node in module.body if _is_pytestmark(node) for call in _markers(node)]
    used = len(of_all)
    for node in module.body:
        if isinstance(node, Function) and node.name.startswith("test_"):
            own = [call for decorator in node.decorator_list for call in _markers(decorator)]
            used += len(own)
            if numbers := [number for call in (*of_all, *own) for number in _numbers(call, file)]:
                yield node.name, list(dict.fromkeys(numbers))
    if used != sum(1 for _ in _markers(module)):
        raise ValueError(f"{file}: a marker is on something that is no test")


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["pytestmark"]


def _markers(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.acceptance":
            yield node


def _numbers(call: ast.Call, file: str) -> list[str]:
    numbers = [node.value for node in call.args if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    if not numbers or len(numbers) != len(call.args) or call.keywords:
        raise ValueError(f"{file}:{call.lineno}: a marker has one text for each statement")
    return numbers


# ---- the page ----

_HEAD = """\
# What is promised, and what proves it

Each statement with the tests that fail when it is broken. `python -m tests.acceptance` writes this page from
`tests/acceptance.toml` and the tests' markers; a test fails when it is out of date, when a statement has no test, and
when a marker names no statement. `make test` runs the tests, `make test-examples` those under `tests/examples`, which
need Node, Go and Rust.
"""


def page(proved: Mapping[str, list[Test]]) -> str:
    """`docs/acceptance.md`."""
    parts = [_HEAD]
    for title, chapter in chapters().items():
        parts.append(f"\n## {title}\n\n| | statement | where it holds | state | tests |\n|---|---|---|---|---|\n")
        parts.extend(_row(statement, proved.get(statement.number, [])) for statement in chapter)
    return "".join(parts)


def _row(statement: Statement, tests: list[Test]) -> str:
    holds = ", ".join(f"[{place.removeprefix('python/inferno/')}](../{place})" for place in statement.holds)
    cells = (statement.number, statement.says, holds, _state(statement, tests), _listed(tests))
    return "| " + " | ".join(cells) + " |\n"


def _state(statement: Statement, tests: Iterable[Test]) -> str:
    if not tests:
        return "not proved"
    where = "" if any(not test.file.startswith(APART) for test in tests) else " by examples"
    return f"proved{where}, but for: {statement.lacking}" if statement.lacking else f"proved{where}"


def _listed(tests: Iterable[Test]) -> str:
    by_file = groupby(tests, key=lambda test: test.file)
    return "; ".join(
        f"[{file.removesuffix('.py')}](../tests/{file}): " + ", ".join(f"`{test.name}`" for test in found)
        for file, found in by_file
    )


if __name__ == "__main__":
    PAGE.write_text(page(proofs()))
