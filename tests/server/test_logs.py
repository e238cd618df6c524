"""Log lines: one line a record, whatever is in it."""

from __future__ import annotations

import json
import logging
import sys
from urllib.parse import quote

import httpx
import pytest
from inferno.telemetry.logs import JsonFormatter, TextFormatter

from tests.server.conftest import PROMPT


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("inferno.access", logging.INFO, "f.py", 1, message, (), None)
    made.fields = fields
    return made


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x1b[31m", "a\u2028b"])
def test_text_lines_cannot_be_forged(text: str) -> None:
    line = TextFormatter().format(record(text, route=text))
    assert line.isprintable()


def test_json_lines() -> None:
    line = json.loads(JsonFormatter().format(record("a\nb", request_id="req_1", status=200)))
    assert (line["message"], line["request_id"], line["status"], line["level"]) == ("a\nb", "req_1", 200, "info")
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_tracebacks_are_kept(formatter: logging.Formatter) -> None:
    made = record("broken")
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        made.exc_info = sys.exc_info()
    assert "ZeroDivisionError" in formatter.format(made)


# T108: what a client may put where.
FORGERIES = [
    'a\r\n{"level": "error", "message": "forged"}',
    "\x1b[31mred\x1b[0m",
    '"}, {"message": "forged',
    "%s %d %(name)s {0} {x}",
    "\u2028forged\u2029",
]


@pytest.mark.parametrize("text", FORGERIES)
def test_one_line_for_each_record_whatever_clients_send(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    raw = text.encode()
    headers = ("User-Agent", "X-Request-ID", "traceparent", "tracestate", "API-Version", "Host")
    with caplog.at_level("DEBUG"):
        client.get(f"/{quote(text)}", headers={"Referer": raw})
        client.post("/inference", json={**PROMPT, "model": text, "prompt": text, "stop": text, text: text})
        client.post(f"/models/{quote(text)}/unload")
        client.post("/metrics/custom", json={"name": text, "type": text, "value": 1, "labels": {text: text}})
        for name in headers:
            client.post("/inference", json=PROMPT, headers={name: raw})
        client.post("/inference", json=PROMPT, headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))]
    assert len([record for record in ours if record.name == "inferno.access"]) == 5 + len(headers)
    for made in ours:
        assert TextFormatter().format(made).isprintable()
        line = JsonFormatter().format(made)
        assert line.isprintable()
        assert json.loads(line)["logger"] == made.name
