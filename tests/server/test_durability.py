"""What was accepted survives the death of the server, wherever it strikes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inferno import verify_webhook

from tests.receiver import Receiver
from tests.server.conftest import MODEL
from tests.server.serve_dying import Child, change, rows

TOTAL = 20
SECRET = "webhook_secret_key"
KEY = {"Idempotency-Key": "order-1"}

DEATHS = [
    "submit:before:1",
    "submit:after:1",
    "claim:before:1",
    "claim:after:1",
    "claim:after:2",
    "record:before:1",
    "record:after:1",
    "record:after:2",
    "address:before:1",  # the transaction that ends the batch
    "address:after:1",
    "begin:before:1",
    "begin:after:1",
    "post:after:1",
    "settle:before:1",
    "settle:after:1",
]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def batch(url: str, prompts: list[str] | None = None) -> dict[str, Any]:
    requests = [{"prompt": prompt} for prompt in prompts or [f"Question {i}" for i in range(TOTAL)]]
    return {"model": MODEL, "requests": requests, "webhook_url": url, "webhook_secret": SECRET}


def until_ended(child: Child, batch_id: str) -> dict[str, Any]:
    while (status := child.client.get(f"/batch/{batch_id}").json())["status"] == "processing":
        pass
    return dict(status)


def until_told(data_dir: Path) -> None:
    while rows(data_dir, "SELECT state FROM deliveries") != [("delivered",)]:
        pass


def check_batch(child: Child, batch_id: str, total: int = TOTAL) -> None:
    """It is complete, its counters are right, and each item has one result."""
    status = until_ended(child, batch_id)
    assert (status["status"], status["completed"], status["failed"]) == ("completed", total, 0)
    results = child.client.get(f"/batch/{batch_id}/results").json()["results"]
    assert [item["id"] for item in results] == [f"item_{i}" for i in range(total)]
    assert {item["choices"][0]["text"] for item in results} == {"The capital is Paris."}
    states = rows(child.data_dir, "SELECT state, result IS NOT NULL, count(*) FROM batch_items GROUP BY 1, 2")
    assert states == [("completed", 1, total)]


@pytest.mark.acceptance("J4", "J5", "K5")
@pytest.mark.parametrize("point", DEATHS)
def test_nothing_is_lost_when_the_server_is_killed(tmp_path: Path, receiver: Receiver, point: str) -> None:
    with Child(tmp_path, point) as dying:
        dying.post("/batch", batch(receiver.url), **KEY)
        assert dying.dead()
    assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    # An attempt that was cut short is made again after its hold: now.
    change(tmp_path, "UPDATE deliveries SET next_attempt = 0 WHERE state = 'pending'")

    with Child(tmp_path) as child:
        answer = child.post("/batch", batch(receiver.url), **KEY)  # a client that got no answer asks again
        assert answer is not None
        check_batch(child, answer.json()["batch_id"])
        until_told(tmp_path)
        assert rows(tmp_path, "SELECT count(*) FROM batches") == [(1,)]
        ((delivery,),) = rows(tmp_path, "SELECT id FROM deliveries")
        messages = receiver.taken()
        assert {message.id for message in messages} == {delivery}
        assert {message.content["data"]["completed"] for message in messages} == {TOTAL}
        for message in messages:
            verify_webhook(message.body, SECRET, headers=message.headers)
        assert child.stop() == 0
    assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.acceptance("J4")
@pytest.mark.parametrize(("point", "cancelled"), [("cancel:before:1", False), ("cancel:after:1", True)])
def test_cancelling_is_all_or_nothing(tmp_path: Path, receiver: Receiver, point: str, cancelled: bool) -> None:
    prompts = ["Question", "hold", "hold", "Question"]
    with Child(tmp_path, point, hold="hold") as dying:
        answer = dying.post("/batch", batch(receiver.url, prompts))
        assert answer is not None
        batch_id = answer.json()["batch_id"]
        while dying.client.get(f"/batch/{batch_id}").json()["completed"] < 2:
            pass
        assert dying.post(f"/batch/{batch_id}/cancel") is None
        assert dying.dead()

    with Child(tmp_path) as child:
        if not cancelled:
            check_batch(child, batch_id, len(prompts))
            return
        status = child.client.get(f"/batch/{batch_id}").json()
        assert (status["status"], status["completed"], status["cancelled"]) == ("cancelled", 2, 2)
        assert rows(tmp_path, "SELECT DISTINCT state FROM batch_items ORDER BY 1") == [("cancelled",), ("completed",)]


@pytest.mark.acceptance("J4", "S5")
def test_a_server_that_is_stopped_gives_its_items_back(tmp_path: Path, receiver: Receiver) -> None:
    prompts = ["Question", "hold", "hold", "Question", "Question"]
    with Child(tmp_path, hold="hold") as child:
        answer = child.post("/batch", batch(receiver.url, prompts))
        assert answer is not None
        batch_id = answer.json()["batch_id"]
        while child.client.get(f"/batch/{batch_id}").json()["completed"] < 3:
            pass
        assert child.stop(signal.SIGTERM) == 0
    items = rows(tmp_path, "SELECT state, attempts, lease_until FROM batch_items ORDER BY position")
    assert items[1:3] == [("queued", 0, None)] * 2
    assert {state for state, *_ in items} == {"queued", "completed"}

    with Child(tmp_path) as again:
        check_batch(again, batch_id, len(prompts))
