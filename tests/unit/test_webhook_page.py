"""docs/webhooks.md: its examples run, its numbers are the code's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from inferno import verify_webhook
from inferno.webhooks import outbound
from inferno.webhooks.policy import Policy
from inferno.webhooks.schedule import DELAYS
from inferno.webhooks.signing import MAX_SECRET_CHARACTERS, attempt_headers, event_body, new_secret
from inferno.webhooks.target import MAX_URL_CHARACTERS

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def message(secret: str) -> tuple[bytes, dict[str, str]]:
    body = event_body("model.loaded", {"model_id": "m\u00e9"}, created=0, secret=secret)
    return body, attempt_headers(body, event="model.loaded", delivery_id="msg_1", sent=time.time(), secrets=[secret])


@pytest.mark.acceptance("K2", "K3")
def test_the_payload_is_genuine() -> None:
    (example,) = blocks("json")
    event = verify_webhook(example, "webhook_secret_key")
    assert (
        event_body(event["event"], event["data"], created=1704110400, secret="webhook_secret_key")
        == example.encode()[:-1]
    )


@pytest.mark.acceptance("K3")
@pytest.mark.parametrize("block", range(2))
@pytest.mark.parametrize("secret", ["webhook_secret_key", "p\u00e4ss", new_secret()])
def test_python(block: int, secret: str) -> None:
    body, headers = message(secret)
    code = compile(blocks("python")[block], "webhooks.md", "exec")
    for given, expected in ((body, json.loads(body)), (body + b" ", None)):
        names: dict[str, Any] = {"secret": secret, "body": given, "headers": headers}
        exec(code, names)
        assert names["event"] == expected


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_javascript() -> None:
    (example,) = blocks("javascript")
    body, headers = message("p\u00e4ss")
    arguments = [json.dumps(text) for text in (body.decode(), headers["X-Inferno-Signature"], "p\u00e4ss")]
    calls = [arguments, ['"x"', *arguments[1:]], [arguments[0], "undefined", arguments[2]], [*arguments[:2], '"x"']]
    script = example + "console.log([" + ",".join(f"isGenuine({','.join(call)})" for call in calls) + "].join())"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert done.stdout == "true,false,false,false\n"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_shell(tmp_path: Path) -> None:
    (example,) = blocks("sh")
    body, headers = message("p\u00e4ss")
    (tmp_path / "body").write_bytes(body)
    environment = {"PATH": "/usr/bin:/bin", "SECRET": "p\u00e4ss"}
    done = subprocess.run(
        ["sh", "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "sha256=" + done.stdout.strip() == headers["X-Inferno-Signature"]


def test_every_header_is_named() -> None:
    _, headers = message("x")
    assert all(f"`{name}`" in PAGE for name in headers)


@pytest.mark.acceptance("K5")
def test_the_numbers() -> None:
    words = {
        0.0: "at once",
        30.0: "30 s",
        300.0: "5 min",
        1800.0: "30 min",
        7200.0: "2 h",
        18000.0: "5 h",
        36000.0: "10 h",
    }
    assert "| after the one before | " + " | ".join(words[delay] for delay in DELAYS) + " |" in PAGE
    assert f"within {Policy().total_s:.0f} seconds" in PAGE
    assert f"at most {MAX_URL_CHARACTERS} characters" in PAGE
    assert f"at most {outbound.MAX_ANSWER_BYTES >> 10} KiB" in PAGE
    assert f"1 to {MAX_SECRET_CHARACTERS} characters" in PAGE
