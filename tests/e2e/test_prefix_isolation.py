"""Cached prompts are shared by all that a user sends, and by nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

from tests.e2e.conftest import MODEL, Server

PROMPT = "Call me Ishmael. Some years ago, never mind how long precisely, " + "I thought I would sail about. " * 12
BODY: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 1}


def key_of(server: Server, user: str) -> str:
    command = [sys.executable, "-m", "inferno.cli.main", "security", "api-key", "create", "--json"]
    command += ["--user", user, "--name", "test", "--data-dir", str(server.data_dir)]
    key: str = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["key"]
    return key


def cached(server: Server, key: str, path: str, body: dict[str, Any]) -> int:
    response = httpx.post(server.url + path, headers={"Authorization": f"Bearer {key}"}, json=body, timeout=60)
    usage = response.raise_for_status().json()["usage"]
    tokens: int = usage.get("prompt_tokens_details", usage)["cached_tokens"]
    return tokens


def cached_by_websocket(server: Server, key: str) -> int:
    with connect(server.url.replace("http", "ws", 1) + "/ws", proxy=None) as connection:
        for message in ({"type": "auth", "token": key}, {"type": "inference", "id": "a", **BODY}):
            connection.send(json.dumps(message))
            answer = json.loads(connection.recv(timeout=60))
        tokens: int = answer["usage"]["cached_tokens"]
        return tokens


def test_prompts_are_shared_within_a_user_and_no_further(server: Server) -> None:
    ada, adas_other_key, grace = key_of(server, "ada"), key_of(server, "ada"), key_of(server, "grace")
    assert cached(server, ada, "/inference", BODY) == 0
    for key, path in ((ada, "/inference"), (adas_other_key, "/inference"), (ada, "/v1/completions")):
        assert cached(server, key, path, BODY) > 64
    assert cached_by_websocket(server, ada) > 64

    assert cached(server, grace, "/inference", BODY) == 0
    assert cached(server, grace, "/v1/completions", BODY) > 64
    assert cached_by_websocket(server, grace) > 64


def test_a_user_finds_prompts_again_after_a_restart(tmp_path: Path, smollm2: Path) -> None:
    def run(*users: str) -> list[int]:
        options = ("--context-size", "1024", "--prefix-store-path", str(tmp_path / "prefixes"))
        server = Server(tmp_path, "--alias", f"{MODEL}={smollm2}", "--model", MODEL, *options)
        try:
            keys = [key_of(server, user) for user in users]
            return [cached(server, key, "/inference", BODY) for key in keys]
        finally:
            assert server.stop() == 0

    assert run("ada") == [0]
    assert run("grace", "ada") == [0, 64]  # a whole block
