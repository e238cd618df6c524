"""Log lines: one line a record, whatever is in it."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from inferno.telemetry.logs import JsonFormatter, TextFormatter


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
