"""Commands that ask a running server: found by the settings, refused with an exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from inferno.identity import api_keys, users
from inferno.store.database import Database
from inferno.store.schema import batch_items, batches, deliveries, webhooks
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from tests.fakes import FakeEngine
from tests.server.conftest import KEY, MODEL, Live, make_services

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[Live]:
    live = Live(make_services(FakeEngine(), database=Database(""), webhook__allow=["127.0.0.0/8"]))
    yield live
    live.stop()
    live.services.database.close()


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


def test_nothing_of_a_deleted_user_goes_on(inferno: Run, tmp_path: Path) -> None:
    database = Database("", data_dir=tmp_path / "data")
    user = database.write_now(lambda c: users.create_user(c, "mallory"))
    key, _ = database.write_now(lambda c: api_keys.create_key(c, user, "test"))
    nobody = "http://127.0.0.1:1/hook"
    live = Live(make_services(FakeEngine(None), database=database, webhook__allow=["127.0.0.0/8"]))
    try:
        with httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {key}"}) as client:
            made = client.post("/webhooks", json={"webhook_url": nobody, "events": ["model.loaded"]}).json()
            client.post(f"/webhooks/{made['id']}/test").raise_for_status()
            batch = {"model": MODEL, "requests": [{"prompt": "x"}], "webhook_url": nobody}
            client.post("/batch", json=batch).raise_for_status()
        generation = live.engine.next()
        assert inferno("security", "user", "delete", "mallory").returncode == 0
        live.engine.finish(generation)
    finally:
        live.stop()
    tables = (webhooks, deliveries, batches, batch_items)
    assert [database.read_now(lambda c, table=table: c.execute(select(table)).all()) for table in tables] == [[]] * 4
    database.close()


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
