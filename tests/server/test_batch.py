"""Batches over HTTP: what is accepted, what is refused, who sees what, what comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from inferno import errors
from inferno.batch import jobs, runner
from inferno.engine.generation import Generation
from inferno.identity import api_keys, users
from inferno.request import Request
from inferno.server.services import Services
from inferno.store.database import Database
from inferno.store.schema import batch_items, batches
from sqlalchemy import select, update

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import AUTH, MODEL, Live, make_services

BATCH: dict[str, Any] = {
    "model": MODEL,
    "requests": [{"id": "req1", "prompt": "What is AI?"}, {"id": "req2", "prompt": "Explain quantum computing"}],
    "max_tokens": 100,
}


@pytest.fixture
def database(any_database: Database) -> Database:
    return any_database


@pytest.fixture
def batch_services(engine: FakeEngine, database: Database) -> Services:
    return make_services(engine, database=database, webhook__allow=["127.0.0.0/8"])


@pytest.fixture
def client(connect: Callable[..., httpx.Client], batch_services: Services) -> httpx.Client:
    """Nothing works off the batches: the runner belongs to a server's life."""
    return connect(batch_services)


def key_of(database: Database, name: str) -> dict[str, str]:
    user = database.write_now(lambda c: users.create_user(c, name))
    key, _ = database.write_now(lambda c: api_keys.create_key(c, user, "test"))
    return {"Authorization": f"Bearer {key}"}


def until_ended(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    while (status := client.get(f"/batch/{batch_id}").json())["status"] == "processing":
        pass
    return dict(status)


# ---- submitting ----


@pytest.mark.acceptance("J1")
def test_a_batch_is_taken(client: httpx.Client) -> None:
    answer = client.post("/batch", json=BATCH)
    assert answer.status_code == 200
    body = answer.json()
    assert body["batch_id"].startswith("batch_")
    assert (body["status"], body["total_requests"]) == ("processing", 2)
    assert isinstance(body["created"], int)
    status = client.get(f"/batch/{body['batch_id']}").json()
    assert (status["completed"], status["failed"], status["total"]) == (0, 0, 2)
    assert status["results_url"] == f"/batch/{body['batch_id']}/results"
    partial = client.get(status["results_url"]).json()
    assert partial == {"batch_id": body["batch_id"], "status": "processing", "results": []}


def changed(**fields: Any) -> dict[str, Any]:
    return {**BATCH, **fields}


@pytest.mark.acceptance("J4")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"requests": []}, "model"),
        ({"model": MODEL}, "requests"),
        (changed(requests=[]), "requests"),
        (changed(requests="x"), "requests"),
        (changed(requests=["x"]), "requests[0]"),
        (changed(requests=[{"id": "a"}]), "requests[0].prompt"),
        (changed(requests=[{"prompt": ""}]), "requests[0].prompt"),
        (changed(requests=[{"prompt": 5}]), "requests[0].prompt"),
        (changed(requests=[{"id": 5, "prompt": "x"}]), "requests[0].id"),
        (changed(requests=[{"id": "", "prompt": "x"}]), "requests[0].id"),
        (changed(requests=[{"id": "a" * 129, "prompt": "x"}]), "requests[0].id"),
        (changed(requests=[{"id": "a\0", "prompt": "x"}]), "requests[0].id"),
        (changed(requests=[{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}]), "requests[1].id"),
        (changed(requests=[{"prompt": "x"}, {"prompt": "y", "temperature": 9}]), "requests[1].temperature"),
        (changed(requests=[{"prompt": "x", "model": "other"}]), "requests[0].model"),
        (changed(max_tokens=0), "max_tokens"),
        (changed(temperature="hot"), "temperature"),
        (changed(webhook_url="ftp://x"), "webhook_url"),
        (changed(webhook_url="http://169.254.169.254/latest"), "webhook_url"),
        (changed(webhook_url="http://10.0.0.1/"), "webhook_url"),
        (changed(webhook_url=5), "webhook_url"),
        (changed(webhook_url="http://127.0.0.1/x", webhook_secret=""), "webhook_secret"),
        (changed(webhook_url="http://127.0.0.1/x", webhook_secret="whsec_???"), "webhook_secret"),
        (changed(webhook_url="http://127.0.0.1/x", webhook_secret="a\0b"), "webhook_secret"),
    ],
)
def test_bad_batches(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = client.post("/batch", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field
    assert client.get("/batch").json() == {"batches": []}


@pytest.mark.acceptance("J4")
def test_unknown_models_and_too_many(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    services = make_services(engine, database=Database(""), batch__max_items=3, batch__max_queued_items=4)
    client = connect(services)
    assert client.post("/batch", json=changed(model="missing")).status_code == 404
    four = changed(requests=[{"prompt": "x"}] * 4)
    assert client.post("/batch", json=four).json()["error"]["details"]["field"] == "requests"
    three = changed(requests=[{"prompt": "x"}] * 3)
    assert client.post("/batch", json=three).status_code == 200
    full = client.post("/batch", json=three)
    assert full.status_code == 503
    assert int(full.headers["retry-after"]) >= 1


@pytest.mark.acceptance("J4")
def test_autoload_off_asks_for_a_loaded_model(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    client = connect(make_services(engine, database=Database(""), models__autoload=False))
    assert client.post("/batch", json=BATCH).json()["error"]["code"] == "MODEL_NOT_LOADED"
    client.post(f"/models/{MODEL}/load")
    assert client.post("/batch", json=BATCH).status_code == 200


def test_a_key_makes_it_safe_to_ask_again(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = client.post("/batch", json=BATCH, headers=headers).json()
    again = client.post("/batch", json=dict(reversed(BATCH.items())), headers=headers).json()
    assert again == first
    other = client.post("/batch", json=changed(max_tokens=5), headers=headers)
    assert other.status_code == 400
    assert other.json()["error"]["details"]["field"] == "Idempotency-Key"
    assert client.post("/batch", json=BATCH, headers={"Idempotency-Key": "x" * 256}).status_code == 400
    assert len(client.get("/batch").json()["batches"]) == 1


def test_what_its_requests_share_is_kept_once(client: httpx.Client, database: Database) -> None:
    schema = {"type": "object", "properties": {"x": {"enum": ["a" * 1000]}}}
    shared = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}, "top_k": 7}
    requests = [{"prompt": "one"}, {"prompt": "two", "temperature": 0.25}]
    client.post("/batch", json={"model": MODEL, "requests": requests, **shared}).raise_for_status()
    rows = database.read_now(lambda c: list(c.execute(select(batch_items.c.request)).scalars()))
    assert max(len(json.dumps(row)) for row in rows) < 200
    first, second = database.write_now(lambda c: jobs.claim(c, MODEL, 2))
    assert "a" * 1000 in json.dumps(first.sampling)
    assert (first.sampling["top_k"], second.sampling) == (7, {**first.sampling, "temperature": 0.25})
    assert (first.prompt, second.prompt) == ("one", "two")


@pytest.mark.acceptance("J4")
def test_others_do_not_see_it(client: httpx.Client, database: Database) -> None:
    ada, bob = key_of(database, "ada"), key_of(database, "bob")
    batch_id = client.post("/batch", json=BATCH, headers=ada).json()["batch_id"]
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
        foreign = client.request(method, f"/batch/{batch_id}{path}", headers=bob)
        unknown = client.request(method, f"/batch/batch_unknown{path}", headers=bob)
        assert foreign.status_code == unknown.status_code == 404
        told, known = (answer.json()["error"] for answer in (foreign, unknown))
        assert told == {**known, "message": known["message"].replace("batch_unknown", batch_id)}
    assert client.get("/batch", headers=bob).json() == {"batches": []}
    assert [batch["batch_id"] for batch in client.get("/batch", headers=ada).json()["batches"]] == [batch_id]


@pytest.mark.acceptance("J4")
@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("DELETE", "")])
def test_a_batch_can_be_cancelled(client: httpx.Client, method: str, path: str) -> None:
    batch_id = client.post("/batch", json=BATCH).json()["batch_id"]
    ended = client.request(method, f"/batch/{batch_id}{path}")
    assert ended.status_code == 200
    assert (ended.json()["status"], ended.json()["cancelled"]) == ("cancelled", 2)
    assert client.request(method, f"/batch/{batch_id}{path}").json() == ended.json()
    results = client.get(f"/batch/{batch_id}/results").json()["results"]
    assert [item["status"] for item in results] == ["cancelled", "cancelled"]


# ---- what metrics say of them ----


def test_no_batches_are_counted_as_none(client: httpx.Client) -> None:
    snapshot = client.get("/metrics/snapshot").json()
    assert snapshot["batches"] == {"processing": 0, "completed": 0, "failed": 0, "cancelled": 0}
    assert snapshot["batch_items"] == {"queued": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0}


def test_batches_of_everybody_are_counted(client: httpx.Client, database: Database) -> None:
    gone = client.post("/batch", json=BATCH, headers=key_of(database, "ada")).json()["batch_id"]
    database.write_now(lambda c: jobs.cancel(c, gone, None))
    for _ in range(2):
        client.post("/batch", json=BATCH)
    claims = database.write_now(lambda c: jobs.claim(c, MODEL, 3))
    done, failed = (jobs.Outcome(claim=claims[i], state=state) for i, state in enumerate(("completed", "failed")))
    database.write_now(lambda c: jobs.record(c, [done, failed]))
    snapshot = client.get("/metrics/snapshot").json()
    assert snapshot["batches"] == {"processing": 1, "completed": 1, "failed": 0, "cancelled": 1}
    assert snapshot["batch_items"] == {"queued": 1, "running": 1, "completed": 1, "failed": 1, "cancelled": 2}
    lines = client.get("/metrics").text.splitlines()
    assert 'inferno_batches{state="processing"} 1.0' in lines
    assert 'inferno_batch_items{state="queued"} 1.0' in lines


def test_counts_are_left_out_while_the_database_is_away(
    connect: Callable[..., httpx.Client], engine: FakeEngine
) -> None:
    database = Database("")
    client = connect(make_services(engine, database=database))

    def away(_: object) -> None:
        raise errors.ServiceUnavailable("The database could not be read.")

    database.read_now = away  # type: ignore[method-assign]
    snapshot = client.get("/metrics/snapshot").json()
    assert (snapshot["batches"], snapshot["batch_items"]) == (None, None)
    assert "inferno_batches{" not in client.get("/metrics").text


# ---- on a server that runs ----


@pytest.fixture
def server(database: Database, serve: Callable[..., Live], engine: FakeEngine) -> Live:
    return serve(engine, database=database)


@pytest.fixture
def on_server(server: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=PATIENCE_S) as client:
        yield client


@pytest.mark.acceptance("J2", "J3")
def test_results_come_in_the_order_of_submission(on_server: httpx.Client) -> None:
    requests = [{"id": f"r{i}", "prompt": f"Question {i}"} for i in range(40)]
    batch_id = on_server.post("/batch", json=changed(requests=requests)).json()["batch_id"]
    status = until_ended(on_server, batch_id)
    assert (status["status"], status["completed"], status["failed"], status["total"]) == ("completed", 40, 0, 40)
    body = on_server.get(status["results_url"]).json()
    assert (body["batch_id"], body["status"]) == (batch_id, "completed")
    assert [item["id"] for item in body["results"]] == [f"r{i}" for i in range(40)]
    first = body["results"][0]
    assert first["choices"] == [{"text": "The capital is Paris.", "index": 0, "finish_reason": "stop"}]
    assert first["usage"] == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}
    assert (first["status"], first["error"]) == ("completed", None)
    assert isinstance(first["processing_time_ms"], int)


@pytest.mark.acceptance("J3")
def test_results_have_logprobs_as_texts_do(on_server: httpx.Client) -> None:
    requests = [{"prompt": "x", "logprobs": 2}, {"prompt": "x"}]
    batch_id = on_server.post("/batch", json={"model": MODEL, "requests": requests}).json()["batch_id"]
    results = on_server.get(until_ended(on_server, batch_id)["results_url"]).json()["results"]
    text = on_server.post("/inference", json={"model": MODEL, **requests[0]}).json()
    assert results[0]["choices"] == text["choices"]
    assert len(text["choices"][0]["logprobs"]) == 5
    assert "logprobs" not in results[1]["choices"][0]


def test_nobody_waits_for_its_requests(on_server: httpx.Client) -> None:
    """What they took is not among the latencies of those that somebody waits for."""
    until_ended(on_server, on_server.post("/batch", json=BATCH).json()["batch_id"])
    lines = on_server.get("/metrics").text.splitlines()
    assert f'inferno_inference_requests_total{{model="{MODEL}"}} 2.0' in lines
    for name in ("inference_duration", "time_to_first_token", "inter_token_latency"):
        assert f"inferno_{name}_seconds_count 0.0" in lines


@pytest.mark.acceptance("J2", "J3")
def test_a_request_that_fails_is_a_result(serve: Callable[..., Live], engine: FakeEngine) -> None:
    engine.refusal = errors.ContextLengthExceeded("The prompt is too long.", prompt_tokens=500, context_size=128)
    server = serve(engine, database=Database(""))
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=PATIENCE_S) as client:
        batch_id = client.post("/batch", json=BATCH).json()["batch_id"]
        status = until_ended(client, batch_id)
        assert (status["status"], status["completed"], status["failed"]) == ("completed", 0, 2)
        item = client.get(f"/batch/{batch_id}/results").json()["results"][0]
    assert (item["status"], item["choices"]) == ("failed", [])
    assert item["error"]["code"] == "CONTEXT_LENGTH_EXCEEDED"
    assert item["error"]["details"] == {"prompt_tokens": 500, "context_size": 128}


@pytest.mark.parametrize(("queue_size", "at_once"), [(100, 20), (4, 10)])
def test_items_at_once(serve: Callable[..., Live], silent_engine: FakeEngine, queue_size: int, at_once: int) -> None:
    """The engine's slots are filled, as many more wait for them, and half the queue is left to others."""
    server = serve(silent_engine, database=Database(""))
    server.services.pool.options = {"parallel": 8, "queue_size": queue_size}  # type: ignore[attr-defined]
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=PATIENCE_S) as client:
        client.post(f"/models/{MODEL}/load")
        batch_id = client.post("/batch", json=changed(requests=[{"prompt": "x"}] * 30)).json()["batch_id"]
        running = [silent_engine.next() for _ in range(at_once)]
        items = client.get("/metrics/snapshot").json()["batch_items"]
        assert (items["running"], items["queued"]) == (at_once, 30 - at_once)
        for generation in running:
            silent_engine.finish(generation)
        for _ in range(30 - at_once):
            silent_engine.finish(silent_engine.next())
        assert until_ended(client, batch_id)["completed"] == 30


class _Away(FakeEngine):
    """Its worker is being restarted, and takes its time."""

    tries = 0

    async def submit(self, request: Request) -> Generation:
        self.tries += 1
        raise errors.ServiceUnavailable("The model's worker process is being restarted.")


def test_an_item_that_was_cut_short_leaves_a_model_alone_that_is_away(
    client: httpx.Client, database: Database, serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_PAUSE_S", 60.0)
    client.post("/batch", json=changed(requests=[{"prompt": "x"}]))
    database.write_now(lambda c: c.execute(update(batch_items).values(attempts=1)))
    engine = _Away()
    server = serve(engine, database=database)
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=10) as on_server:
        while not engine.tries:
            pass
        for _ in range(20):  # time enough for another try
            assert on_server.get("/batch").json()["batches"][0]["status"] == "processing"
    assert engine.tries == 1


@pytest.mark.acceptance("X4")
def test_a_database_that_is_away_does_not_hold_up_the_end(
    serve: Callable[..., Live], silent_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LAST_WRITE_S", 0.1)
    database = Database("")
    server = serve(silent_engine, database=database)
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=10) as client:
        client.post("/batch", json=BATCH)
        for _ in BATCH["requests"]:
            silent_engine.next()

    def refuse(_: object) -> None:
        raise errors.ServiceUnavailable("The database could not be written.")

    monkeypatch.setattr(database, "write_now", refuse)
    server.server.should_exit = True
    server.join()


@pytest.mark.acceptance("J4")
def test_cancelling_stops_what_runs(serve: Callable[..., Live], silent_engine: FakeEngine) -> None:
    server = serve(silent_engine, database=Database(""))
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=PATIENCE_S) as client:
        batch_id = client.post("/batch", json=BATCH).json()["batch_id"]
        first, second = silent_engine.next(), silent_engine.next()
        assert first.request.priority < 0
        client.post(f"/batch/{batch_id}/cancel")
        cancelled = silent_engine.cancelled.get(timeout=PATIENCE_S) + silent_engine.cancelled.get(timeout=PATIENCE_S)
        assert sorted(cancelled) == sorted(first.sequence_ids + second.sequence_ids)


def test_items_share_cached_prompts_with_their_users_own_requests(
    serve: Callable[..., Live], silent_engine: FakeEngine
) -> None:
    database = Database("")
    server = serve(silent_engine, database=database)
    salts = []
    for name in ("ada", "grace"):
        with httpx.Client(base_url=server.url, headers=key_of(database, name), timeout=PATIENCE_S) as client:
            assert client.post("/batch", json=changed(requests=[{"prompt": "a"}])).status_code == 200
        user = database.write_now(lambda c, name=name: users.get_user(c, name))
        generation = silent_engine.next()
        silent_engine.finish(generation)
        salts.append(generation.request.cache_salt)
        assert salts[-1] == server.services.authenticator.salt_of(user.id)
    assert salts[0] != salts[1]


@pytest.mark.acceptance("J2", "J3")
def test_a_batch_whose_model_is_gone_has_failed(serve: Callable[..., Live], engine: FakeEngine) -> None:
    """Nothing of it could be tried."""
    server = serve(engine, database=Database(""))

    async def gone(request: Any) -> Any:
        raise errors.ModelNotFound(f"Model '{MODEL}' not found", available_models=[])

    engine.submit = gone  # type: ignore[method-assign]
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=PATIENCE_S) as client:
        batch_id = client.post("/batch", json=BATCH).json()["batch_id"]
        status = until_ended(client, batch_id)
        assert (status["status"], status["completed"], status["failed"], status["total"]) == ("failed", 0, 2, 2)
        assert status["error"]["code"] == "MODEL_NOT_FOUND"
        results = client.get(status["results_url"])
        assert results.status_code == 200
        assert [item["status"] for item in results.json()["results"]] == ["failed", "failed"]


@pytest.mark.acceptance("J4")
def test_results_are_kept_for_so_long(
    serve: Callable[..., Live], engine: FakeEngine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEASE_S", 0.2)  # how often the house is kept
    server = serve(engine, database=database, batch__retention_days=1)
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=PATIENCE_S) as client:
        old, new = (client.post("/batch", json=BATCH).json()["batch_id"] for _ in range(2))
        for batch_id in (old, new):
            until_ended(client, batch_id)
        ended = time.time() - 86401
        database.write_now(lambda c: c.execute(update(batches).where(batches.c.id == old).values(finished=ended)))
        while client.get(f"/batch/{old}").status_code == 200:
            pass
        assert client.get(f"/batch/{old}/results").status_code == 404
        assert client.get(f"/batch/{new}").json()["status"] == "completed"


@pytest.mark.acceptance("J4")
def test_fields_of_the_batch_and_of_a_request(serve: Callable[..., Live], silent_engine: FakeEngine) -> None:
    server = serve(silent_engine, database=Database(""))
    requests = [{"prompt": "a"}, {"prompt": "b", "max_tokens": 7, "seed": 3}]
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=PATIENCE_S) as client:
        client.post("/batch", json=changed(requests=requests, temperature=0))
    sampling = [silent_engine.next().request.sampling for _ in range(2)]
    assert [fields["max_tokens"] for fields in sampling] == [100, 7]
    assert [fields.get("seed") for fields in sampling][1] == 3
    assert {fields["temperature"] for fields in sampling} == {0}


def test_results_are_json_whatever_their_number(on_server: httpx.Client) -> None:
    """More than one page of them."""
    requests = [{"prompt": "x"}] * 1100
    batch_id = on_server.post("/batch", json=changed(requests=requests)).json()["batch_id"]
    until_ended(on_server, batch_id)
    answer = on_server.get(f"/batch/{batch_id}/results")
    assert len(json.loads(answer.content)["results"]) == 1100
    assert answer.json()["results"][777]["id"] == "item_777"
