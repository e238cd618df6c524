"""Only one module of the server may send requests to where others say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import inferno
import pytest

pytestmark = pytest.mark.acceptance("K5")

PACKAGE = Path(inferno.__file__).parent
CLIENTS = {
    "aiohttp", "ftplib", "http.client", "httpcore", "httpx", "huggingface_hub", "pycurl", "requests", "smtplib",
    "urllib.request", "urllib3",
}  # fmt: skip
#: The operator's own tools, and what they call; no client of the server reaches them.
OPERATORS = ("cli/", "models/pull.py")
#: What of httpx reads the environment.
READERS = {
    "Client", "AsyncClient", "HTTPTransport", "AsyncHTTPTransport", "stream", "request",
    "get", "options", "head", "post", "put", "patch", "delete",
}  # fmt: skip


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def clients(tree: ast.AST) -> set[str]:
    return {client for client in CLIENTS for name in imports(tree) if f"{name}.".startswith(f"{client}.")}


def trusting_calls(tree: ast.AST) -> list[str]:
    """Calls of httpx that take proxies and certificates from the environment."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"httpx.{name}" for name in READERS}:
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if given.get("trust_env") != "False":
                found.append(ast.unparse(node))
    return found


def test_only_the_helper_has_a_client() -> None:
    found = {name: clients(tree) for name, tree in modules() if not name.startswith(OPERATORS)}
    assert {name: names for name, names in found.items() if names} == {"webhooks/outbound.py": {"httpcore"}}


def test_no_client_of_the_server_trusts_the_environment() -> None:
    assert [call for name, tree in modules() if not name.startswith(OPERATORS) for call in trusting_calls(tree)] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import httpx", {"httpx"}),
        ("def f():\n    from httpx import Client", {"httpx"}),
        ("import urllib.request as r", {"urllib.request"}),
        ("from urllib import request", {"urllib.request"}),
        ("from http import client", {"http.client"}),
        ("import http.client, requests.sessions", {"http.client", "requests"}),
        ("from urllib.parse import urlsplit\nimport http\nimport httpx2\nfrom inferno import request", set()),
    ],
)
def test_the_search_finds_clients(source: str, expected: set[str]) -> None:
    assert clients(ast.parse(source)) == expected


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("httpx.AsyncClient(timeout=1)", 1),
        ("httpx.Client(trust_env=True)", 1),
        ("httpx.post(url)", 1),
        ("httpx.Client(trust_env=False, timeout=1)", 0),
        ("httpx.URL(url)", 0),
    ],
)
def test_the_search_finds_trust(source: str, found: int) -> None:
    assert len(trusting_calls(ast.parse(source))) == found
