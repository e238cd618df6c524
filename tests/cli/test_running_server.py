"""Commands that ask a running server: found by the settings, refused with an exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from inferno.store.database import Database
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes import FakeEngine
from tests.server.conftest import KEY, Live, make_services

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[Live]:
    live = Live(make_services(FakeEngine(), database=Database(""), webhook__allow=["127.0.0.0/8"]))
    yield live
    live.stop()


def parsed(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.acceptance("K1")
def test_a_webhook_from_its_making_to_its_end(inferno: Run, server: Live) -> None:
    where = ("--url", server.url, "--key", KEY)
    url = "http://127.0.0.1:1/hook"
    made = inferno("webhooks", "add", url, "--event", "batch.complete", *where)
    assert made.returncode == 0
    assert made.stdout.startswith("whsec_")
    (webhook,) = parsed(inferno("webhooks", "list", "--json", *where))
    assert (webhook["webhook_url"], webhook["events"]) == (url, ["batch.complete"])
    assert webhook["id"] in inferno("webhooks", "list", *where).stdout
    queued = parsed(inferno("webhooks", "test", webhook["id"], "--json", *where))
    (delivery,) = parsed(inferno("webhooks", "deliveries", webhook["id"], "--json", *where))
    assert delivery["id"] == queued["delivery"]
    assert inferno("webhooks", "replay", delivery["id"], *where).returncode == 0
    assert inferno("webhooks", "rotate", webhook["id"], *where).stdout.startswith("whsec_")
    assert inferno("webhooks", "remove", webhook["id"], *where).returncode == 0
    assert inferno("webhooks", "remove", webhook["id"], *where).returncode == 3


def test_metrics_in_three_forms(inferno: Run, server: Live) -> None:
    where = ("--url", server.url, "--key", KEY)
    names = {family.name for family in text_string_to_metric_families(inferno("metrics", *where).stdout)}
    assert "inferno_inference_requests" in names
    listed = parsed(inferno("metrics", "--json", *where))["metrics"]
    assert any(family["name"].startswith("inferno_inference_requests") for family in listed)
    assert parsed(inferno("metrics", "--snapshot", *where))["uptime_seconds"] >= 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--url", "http://127.0.0.1:1"), 4, "No server answers"),
        (("--url", "ftp://x"), 1, "--url"),
        (("--url", "http://user:pass@localhost"), 1, "--url"),
    ],
)
def test_no_server(inferno: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    result = inferno("webhooks", "list", *arguments)
    assert (result.returncode, told in result.stderr) == (code, True)


def test_refusals_are_told(inferno: Run, server: Live) -> None:
    wrong = inferno("webhooks", "list", "--url", server.url, "--key", "wrong")
    assert wrong.returncode == 1
    assert "not valid" in wrong.stderr
    keyless = inferno("webhooks", "list", "--url", server.url)
    assert "give --key" in keyless.stderr
    bad = inferno("webhooks", "add", "http://10.0.0.1/", "--event", "batch.complete", "--url", server.url, "--key", KEY)
    assert "webhook_url" in bad.stderr
