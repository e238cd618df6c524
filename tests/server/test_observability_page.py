"""docs/observability.md says what the server says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from inferno import errors
from inferno.config import SETTINGS
from inferno.server.schemas import components
from inferno.telemetry import custom_metrics, otlp

from tests.fakes import FakeEngine
from tests.server.conftest import CHAT, PROMPT

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()


def test_every_family_has_its_row(client: httpx.Client, engine: FakeEngine) -> None:
    client.post("/inference", json=PROMPT)
    engine.refusal = errors.ContextLengthExceeded("long")
    client.post("/inference", json=PROMPT)
    rows = []
    for family in client.get("/metrics/json").json()["metrics"]:
        labels = sorted({label for sample in family["samples"] for label in sample["labels"]} - {"le"})
        written = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{family['name']}` | {family['type']} | {written} | {family['help']} |")
    assert rows == [line for line in PAGE.splitlines() if line.startswith("| `inferno_")]


def test_every_attribute_is_named(client: httpx.Client) -> None:
    client.post("/v1/chat/completions", json={**CHAT, "n": 2, "max_tokens": 5, "seed": 1, "presence_penalty": 1})
    client.post("/inference", json={**PROMPT, "model": "none"})
    names = {name for span in client.get("/traces").json()["traces"] for name in span["attributes"]}
    assert {"error.type", "gen_ai.request.seed", "gen_ai.usage.output_tokens"} <= names
    for name in names:
        assert f"`{name}`" in PAGE or f"`{name.removeprefix('gen_ai.request.')}`" in PAGE


def test_every_field_of_a_span_has_its_row() -> None:
    for field in components()["Traces"]["properties"]["traces"]["items"]["properties"]:
        assert re.search(rf"^\|.*`{field}`.*\|.*\|$", PAGE, re.MULTILINE)


def test_the_snapshot_has_the_fields_shown() -> None:
    (shown,) = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    schema = components()["MetricsSnapshot"]["properties"]
    assert shown.keys() == schema.keys()
    assert shown["models"][0].keys() == schema["models"]["items"]["properties"].keys()


@pytest.mark.parametrize("name", [*custom_metrics._TAKEN, *custom_metrics._TAKEN_NAMES, *custom_metrics._TAKEN_LABELS])
def test_every_taken_name_is_named(name: str) -> None:
    assert f"`{name}" in PAGE


def test_numbers() -> None:
    defaults = {setting.key: setting.default for setting in SETTINGS}
    assert f"`metrics.custom_series` time series ({defaults['metrics.custom_series']})" in PAGE
    assert f"`traces.capacity` ({defaults['traces.capacity']})" in PAGE
    assert f"Up to {otlp.MAX_WAITING} spans wait" in PAGE
    assert f"or {otlp.BATCH} spans" in PAGE
    assert f"Up to {custom_metrics.MAX_LABELS} labels" in PAGE
    assert f"up to {custom_metrics.MAX_LABEL_LENGTH} printable" in PAGE
