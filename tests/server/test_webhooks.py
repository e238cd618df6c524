"""Webhooks over HTTP: made, listed, tested, told of what happens."""

from __future__ import annotations

import http.server
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from inferno import errors, verify_webhook
from inferno.identity import api_keys, users
from inferno.server import announcements
from inferno.store.database import Database
from inferno.store.schema import webhooks
from inferno.webhooks import outbox
from sqlalchemy import Connection, update
from standardwebhooks import Webhook as StandardWebhook

from tests.fakes import PATIENCE_S, FakeEngine
from tests.server.conftest import AUTH, MODEL, PROMPT, Live, make_services

PUBLIC = "https://93.184.216.34/hook"
EVENTS = ["inference.complete", "batch.complete", "model.loaded"]
LOOPBACK = ["127.0.0.0/8"]
SECRET = "webhook_secret_key"

Message = tuple[dict[str, str], bytes]


class Receiver:
    """A web server that takes everything."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Message] = queue.Queue()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                receiver.messages.put((dict(self.headers), body))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def next(self, secret: str | None = SECRET) -> dict[str, Any]:
        """The next message; it must be signed with `secret` in every way there is."""
        headers, body = self.messages.get(timeout=PATIENCE_S)
        if secret is None:
            content = verify_none(body)
        else:
            content = verify_webhook(body, secret, headers=headers)
            assert verify_webhook(body, secret) == content
        assert headers["X-Inferno-Event"] == content["event"]
        return content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def verify_none(body: bytes) -> dict[str, Any]:
    content: dict[str, Any] = httpx.Response(200, content=body).json()
    assert content["signature"] is None
    return content


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def database(any_database: Database) -> Database:
    return any_database


@pytest.fixture
def server(database: Database, serve: Callable[..., Live], engine: FakeEngine) -> Live:
    return serve(engine, database=database, webhook__allow=LOOPBACK)


@pytest.fixture
def on_server(server: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=AUTH, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def client(connect: Callable[..., httpx.Client], engine: FakeEngine, database: Database) -> httpx.Client:
    return connect(make_services(engine, database=database))


# ---- the configuration object ----


@pytest.mark.acceptance("K1")
def test_made_shown_listed_deleted(client: httpx.Client) -> None:
    made = client.post("/webhooks", json={"webhook_url": PUBLIC, "events": EVENTS, "secret": SECRET})
    assert made.status_code == 200
    webhook = made.json()
    assert (webhook["webhook_url"], webhook["events"], webhook["disabled"]) == (PUBLIC, EVENTS, None)
    assert SECRET not in made.text
    assert client.get(f"/webhooks/{webhook['id']}").json() == webhook
    assert client.get("/webhooks").json() == {"webhooks": [webhook]}
    assert client.delete(f"/webhooks/{webhook['id']}").json() == {"id": webhook["id"], "deleted": True}
    assert client.get(f"/webhooks/{webhook['id']}").status_code == 404
    assert client.get("/webhooks").json() == {"webhooks": []}


def test_a_secret_is_made_and_told_once(client: httpx.Client) -> None:
    webhook = client.post("/webhooks", json={"webhook_url": PUBLIC, "events": EVENTS}).json()
    assert webhook["secret"].startswith("whsec_")
    assert "secret" not in client.get(f"/webhooks/{webhook['id']}").json()
    again = client.post(f"/webhooks/{webhook['id']}/secret").json()
    assert again["secret"] not in (None, webhook["secret"])


@pytest.mark.acceptance("K5")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "webhook_url"),
        ({"webhook_url": PUBLIC}, "events"),
        ({"webhook_url": PUBLIC, "events": []}, "events"),
        ({"webhook_url": PUBLIC, "events": "batch.complete"}, "events"),
        ({"webhook_url": PUBLIC, "events": ["model.exploded"]}, "events"),
        ({"webhook_url": PUBLIC, "events": [5]}, "events"),
        ({"webhook_url": PUBLIC, "events": [["batch.complete"]]}, "events"),
        ({"webhook_url": PUBLIC, "events": EVENTS, "secret": 5}, "secret"),
        ({"webhook_url": PUBLIC, "events": EVENTS, "secret": "x" * 513}, "secret"),
        ({"webhook_url": PUBLIC, "events": EVENTS, "secret": "a\0b"}, "secret"),
        ({"webhook_url": "x", "events": EVENTS}, "webhook_url"),
        ({"webhook_url": "http://127.0.0.1/", "events": EVENTS}, "webhook_url"),
        ({"webhook_url": "http://[::1]/", "events": EVENTS}, "webhook_url"),
        ({"webhook_url": "http://169.254.169.254/", "events": EVENTS}, "webhook_url"),
        ({"webhook_url": "http://2130706433/", "events": EVENTS}, "webhook_url"),
        ({"webhook_url": "file:///etc/passwd", "events": EVENTS}, "webhook_url"),
    ],
)
def test_bad_webhooks(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = client.post("/webhooks", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field
    assert client.get("/webhooks").json() == {"webhooks": []}


@pytest.mark.acceptance("K1")
def test_others_do_not_see_it(client: httpx.Client, database: Database) -> None:
    def bearer(name: str) -> dict[str, str]:
        user = database.write_now(lambda c: users.create_user(c, name))
        key, _ = database.write_now(lambda c: api_keys.create_key(c, user, "test"))
        return {"Authorization": f"Bearer {key}"}

    ada, bob = bearer("ada"), bearer("bob")
    webhook = client.post("/webhooks", json={"webhook_url": PUBLIC, "events": EVENTS}, headers=ada).json()["id"]
    client.post(f"/webhooks/{webhook}/test", headers=ada)
    (delivery,) = client.get(f"/webhooks/{webhook}/deliveries", headers=ada).json()["deliveries"]
    for method, path in (
        ("GET", f"/webhooks/{webhook}"),
        ("DELETE", f"/webhooks/{webhook}"),
        ("POST", f"/webhooks/{webhook}/test"),
        ("POST", f"/webhooks/{webhook}/secret"),
        ("GET", f"/webhooks/{webhook}/deliveries"),
        ("POST", f"/webhooks/deliveries/{delivery['id']}/replay"),
    ):
        assert client.request(method, path, headers=bob).status_code == 404
    assert client.get("/webhooks", headers=bob).json() == {"webhooks": []}


# ---- being told ----


@pytest.mark.acceptance("K2", "K3", "S3")
def test_inference_and_loading_are_told(on_server: httpx.Client, receiver: Receiver) -> None:
    on_server.post("/webhooks", json={"webhook_url": receiver.url, "events": EVENTS, "secret": SECRET})
    answer = on_server.post("/inference", json=PROMPT)
    content = receiver.next()
    assert content["event"] == "inference.complete"
    assert content["timestamp"].endswith("Z")
    data = content["data"]
    assert (data["request_id"], data["model"], data["tokens_generated"]) == (answer.headers["x-request-id"], MODEL, 5)
    assert isinstance(data["duration_ms"], int)
    with on_server.stream("POST", "/inference/stream", json=PROMPT) as stream:
        stream.read()
    assert receiver.next()["data"]["request_id"] == stream.headers["x-request-id"]


def test_only_what_was_asked_for_is_told(on_server: httpx.Client, receiver: Receiver) -> None:
    on_server.post("/webhooks", json={"webhook_url": receiver.url, "events": ["batch.complete"], "secret": SECRET})
    on_server.post("/inference", json=PROMPT)
    on_server.post("/batch", json={"model": MODEL, "requests": [{"prompt": "x"}]})
    assert receiver.next()["event"] == "batch.complete"


@pytest.mark.acceptance("J5", "K2", "K4")
@pytest.mark.parametrize("own", [True, False])
def test_a_batch_tells_its_address(on_server: httpx.Client, receiver: Receiver, own: bool) -> None:
    batch: dict[str, Any] = {"model": MODEL, "requests": [{"prompt": "x"}], "webhook_url": receiver.url}
    secret = SECRET if own else None
    batch_id = on_server.post("/batch", json={**batch, "webhook_secret": secret}).json()["batch_id"]
    content = receiver.next(secret)
    assert content["event"] == "batch.complete"
    data = content["data"]
    assert (data["batch_id"], data["status"], data["completed"], data["total"]) == (batch_id, "completed", 1, 1)
    assert data["model"] == MODEL
    assert data["duration_ms"] >= 0


@pytest.mark.acceptance("K1", "K4")
def test_secrets_may_be_as_long_as_they_may(on_server: httpx.Client, receiver: Receiver) -> None:
    first, second = "1" * 512, "2" * 512
    body = {"webhook_url": receiver.url, "events": ["model.loaded"], "secret": first}
    webhook = on_server.post("/webhooks", json=body).json()["id"]
    on_server.post(f"/webhooks/{webhook}/test").raise_for_status()
    assert receiver.next(first)["data"] == {"test": True}
    on_server.post(f"/webhooks/{webhook}/secret").raise_for_status()
    batch = {"model": MODEL, "requests": [{"prompt": "x"}], "webhook_url": receiver.url, "webhook_secret": second}
    on_server.post("/batch", json=batch).raise_for_status()
    assert receiver.next(second)["event"] == "batch.complete"


@pytest.mark.acceptance("K4")
def test_the_owners_secret_signs_for_a_batch(on_server: httpx.Client, receiver: Receiver) -> None:
    on_server.post("/webhooks", json={"webhook_url": PUBLIC, "events": ["model.loaded"], "secret": "the owner's"})
    on_server.post("/batch", json={"model": MODEL, "requests": [{"prompt": "x"}], "webhook_url": receiver.url})
    assert receiver.next("the owner's")["event"] == "batch.complete"


@pytest.mark.acceptance("K4")
def test_the_servers_secret_signs_last(serve: Callable[..., Live], engine: FakeEngine, receiver: Receiver) -> None:
    live = serve(engine, database=Database(""), webhook__allow=LOOPBACK, webhook__secret="the server's")
    with httpx.Client(base_url=live.url, headers=AUTH) as client:
        client.post("/batch", json={"model": MODEL, "requests": [{"prompt": "x"}], "webhook_url": receiver.url})
    assert receiver.next("the server's")["event"] == "batch.complete"


def test_attempts_are_counted(on_server: httpx.Client, receiver: Receiver) -> None:
    def attempts(state: str) -> float:
        name = f'inferno_webhook_attempts_total{{event="inference.complete",state="{state}"}}'
        (line,) = [line for line in on_server.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(line.split()[-1])

    assert attempts("delivered") == attempts("pending") == attempts("dead") == 0
    nobody = "http://127.0.0.1:9/hook"  # refuses connections
    for url in (receiver.url, nobody):
        on_server.post("/webhooks", json={"webhook_url": url, "events": ["inference.complete"], "secret": SECRET})
    on_server.post("/inference", json=PROMPT)
    receiver.next()
    deadline = time.monotonic() + PATIENCE_S
    while (attempts("delivered"), attempts("pending")) != (1, 1):
        assert time.monotonic() < deadline


@pytest.mark.acceptance("K4")
@pytest.mark.parametrize("secret", ["whsec_%%", "whsec_", "x" * 513])
def test_a_secret_that_cannot_sign_is_refused_at_the_start(engine: FakeEngine, secret: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"^webhook\.secret must ") as caught:
        make_services(engine, webhook__secret=secret)
    assert caught.value.field == "webhook.secret"


def test_a_fault_of_ours_is_a_failed_attempt(on_server: httpx.Client, receiver: Receiver, database: Database) -> None:
    webhook = on_server.post("/webhooks", json={"webhook_url": receiver.url, "events": EVENTS}).json()["id"]
    database.write_now(lambda c: c.execute(update(webhooks).values(secret="whsec_%%")))  # nothing can be signed with it
    on_server.post(f"/webhooks/{webhook}/test")
    deadline = time.monotonic() + PATIENCE_S
    while (seen := on_server.get(f"/webhooks/{webhook}/deliveries").json()["deliveries"][0])["last_error"] is None:
        assert time.monotonic() < deadline
    assert (seen["last_error"], seen["state"], seen["attempts"]) == ("internal_error", "pending", 1)
    assert receiver.messages.empty()


@pytest.mark.acceptance("K1")
def test_a_test_message_and_its_history(on_server: httpx.Client, receiver: Receiver) -> None:
    body = {"webhook_url": receiver.url, "events": ["batch.complete"]}
    webhook = on_server.post("/webhooks", json=body).json()
    queued = on_server.post(f"/webhooks/{webhook['id']}/test").json()
    headers, raw = receiver.messages.get(timeout=PATIENCE_S)
    assert StandardWebhook(webhook["secret"]).verify(raw, headers)["data"] == {"test": True}
    assert headers["webhook-id"] == headers["X-Inferno-Delivery"] == queued["delivery"]
    path = f"/webhooks/{webhook['id']}/deliveries"
    while (seen := on_server.get(path).json()["deliveries"][0])["state"] == "pending":
        pass
    assert (seen["id"], seen["state"], seen["attempts"], seen["last_status"]) == (
        queued["delivery"],
        "delivered",
        1,
        204,
    )
    on_server.post(f"/webhooks/deliveries/{seen['id']}/replay")
    again, _ = receiver.messages.get(timeout=PATIENCE_S)
    assert again["webhook-id"] == seen["id"]


@pytest.mark.acceptance("K5")
@pytest.mark.parametrize("path", ["/hang", "?hang"])
def test_a_receiver_that_hangs_keeps_no_other_waiting(
    on_server: httpx.Client, receiver: Receiver, database: Database, path: str
) -> None:
    """However much waits for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}{path}"

        def queue_up(connection: Connection) -> None:
            for _ in range(200):
                outbox.address(connection, "batch.complete", {}, user_id="ada", url=url, secret=None)

        database.write_now(queue_up)
        body = {"webhook_url": receiver.url, "events": EVENTS, "secret": SECRET}
        webhook = on_server.post("/webhooks", json=body).json()
        on_server.post(f"/webhooks/{webhook['id']}/test")
        assert receiver.next()["data"] == {"test": True}


@pytest.mark.acceptance("K5")
def test_what_happens_while_the_database_is_away_is_told_later(
    on_server: httpx.Client, receiver: Receiver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "RETRY_S", 0.01)
    refused = threading.Event()

    def refuse(_: object) -> None:
        refused.set()
        raise errors.ServiceUnavailable("The database could not be written.")

    body = {"webhook_url": receiver.url, "events": ["inference.complete"], "secret": SECRET}
    on_server.post("/webhooks", json=body)
    with monkeypatch.context() as away:
        away.setattr(database, "write_now", refuse)
        for _ in range(2):
            on_server.post("/inference", json=PROMPT)
        assert refused.wait(PATIENCE_S)
    told = [receiver.next()["data"]["request_id"] for _ in range(2)]
    assert len(set(told)) == 2


@pytest.mark.acceptance("K5")
def test_a_database_that_is_away_does_not_hold_up_the_end(
    server: Live, receiver: Receiver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "LAST_WRITE_S", 0.1)

    def refuse(_: object) -> None:
        raise errors.ServiceUnavailable("The database could not be written.")

    with httpx.Client(base_url=server.url, headers=AUTH) as client:
        client.post("/webhooks", json={"webhook_url": receiver.url, "events": ["inference.complete"]})
        monkeypatch.setattr(database, "write_now", refuse)
        client.post("/inference", json=PROMPT)
    server.server.should_exit = True
    server.join()


@pytest.mark.acceptance("K1")
def test_webhooks_of_the_configuration_are_told_of_everybody(
    serve: Callable[..., Live], engine: FakeEngine, receiver: Receiver
) -> None:
    database = Database("")
    table = {"webhook_url": receiver.url, "events": ["inference.complete"], "secret": SECRET}
    for tables in ([table], [table]):  # a second start does not make a second one
        live = serve(engine, database=database, webhook__allow=LOOPBACK, webhooks=tables)
    user = database.write_now(lambda c: users.create_user(c, "ada"))
    key, _ = database.write_now(lambda c: api_keys.create_key(c, user, "test"))
    with httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {key}"}) as client:
        client.post("/inference", json=PROMPT)
        assert client.get("/webhooks").json() == {"webhooks": []}
    assert receiver.next()["event"] == "inference.complete"
    assert receiver.messages.empty()
