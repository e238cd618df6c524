"""The examples are those of the API document, byte for byte, where the document is at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES

DOCUMENT = Path(__file__).parents[3] / "shared" / "spec" / "inferno-api.md"
CURL = ("health", "models", "inference", "stream", "chat")


@pytest.fixture(scope="module")
def document() -> str:
    if not DOCUMENT.exists():
        pytest.skip("the API document is not beside the project")
    return DOCUMENT.read_bytes().decode()


@pytest.fixture(scope="module")
def blocks(document: str) -> dict[str, str]:
    """The code of the section of examples, by language."""
    return dict(code_blocks(document.partition("\n## Examples\n")[2]))


def code_blocks(markdown: str) -> list[tuple[str, str]]:
    """(language, code) of each."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", markdown, re.DOTALL | re.MULTILINE)


def text(name: str) -> str:
    return (EXAMPLES / name).read_bytes().decode()


@pytest.mark.acceptance("D1", "D4")
@pytest.mark.parametrize(("language", "file"), [("python", "python/simple_and_stream.py"), ("go", "go/inference.go")])
def test_whole_files(blocks: dict[str, str], language: str, file: str) -> None:
    assert text(file) == blocks[language]


@pytest.mark.acceptance("D2", "D5")
@pytest.mark.parametrize(
    ("language", "file"),
    [("typescript", "typescript/inference.ts"), ("rust", "rust/src/main.rs")],
)
def test_files_that_only_add_a_call(blocks: dict[str, str], language: str, file: str) -> None:
    assert text(file).startswith(blocks[language] + "\n")


@pytest.mark.acceptance("D2")
def test_javascript_is_typescript_without_types(blocks: dict[str, str]) -> None:
    plain = re.sub(r": (string|Promise<string>)(?=[,) ])", "", blocks["typescript"])
    assert text("javascript/inference.js").startswith(plain + "\n")


@pytest.mark.acceptance("D3")
def test_curl_commands(blocks: dict[str, str]) -> None:
    commands = blocks["bash"].rstrip("\n").split("\n\n")
    assert len(commands) == len(CURL)
    for name, command in zip(CURL, commands, strict=True):
        assert text(f"curl/{name}.sh").endswith(f"\n\n{command}\n")


@pytest.mark.acceptance("D3", "D6")
@pytest.mark.parametrize(
    ("title", "file"), [("Generate API Key", "security/create_api_key.sh"), ("Login", "curl/login.sh")]
)
def test_commands_of_other_sections(document: str, title: str, file: str) -> None:
    language, command = code_blocks(document.partition(f"\n#### {title}")[2])[0]
    assert language == "bash"
    assert text(file).endswith(f"\n{command}")


@pytest.mark.acceptance("D6")
def test_websocket_snippets(document: str) -> None:
    (_, connection), (_, request) = code_blocks(document.partition("\n### Connection\n")[2])[:2]
    example = text("javascript/connection.js")
    assert example.startswith(f"{connection}\n")
    assert f"\nconst request = {request.rstrip()};\n" in example


def test_the_page_lists_every_example() -> None:
    page = text("README.md")
    helpers = {"README.md", "package.json", "go.mod", "Cargo.toml", "main.go"}
    files = [path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.*") if path.name not in helpers]
    assert [name for name in files if f"`{name}`" not in page] == []
