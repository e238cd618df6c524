"""A batch on the real model, and who is told of its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inferno import verify_webhook

from tests.e2e.conftest import MODEL, Server
from tests.receiver import Receiver

QUESTIONS = ["The capital of France is", "The capital of Italy is", "word " * 2000]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.mark.acceptance("J1", "J2", "J3", "J5", "K2", "K3", "S3")
def test_a_batch(tmp_path: Path, smollm2: Path, receiver: Receiver) -> None:
    """Its last request is too long for the context."""
    options = ("--alias", f"{MODEL}={smollm2}", "--context-size", "512", "--webhook-allow", "127.0.0.0/8")
    server = Server(tmp_path, *options)
    client = server.client
    requests = [{"id": f"req{i}", "prompt": prompt} for i, prompt in enumerate(QUESTIONS)]
    batch = {"model": MODEL, "requests": requests, "max_tokens": 8, "temperature": 0}
    try:
        answer = client.post("/batch", json={**batch, "webhook_url": receiver.url, "webhook_secret": "secret"}).json()
        assert (answer["status"], answer["total_requests"]) == ("processing", 3)  # the model is not even loaded
        message = receiver.messages.get(timeout=60)
        status = client.get(f"/batch/{answer['batch_id']}").json()
        assert (status["status"], status["completed"], status["failed"], status["total"]) == ("completed", 2, 1, 3)
        france, italy, long = client.get(status["results_url"]).json()["results"]
        assert "Paris" in france["choices"][0]["text"]
        assert "Rome" in italy["choices"][0]["text"]
        assert france["usage"] == {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}
        assert (long["id"], long["status"], long["error"]["code"]) == ("req2", "failed", "CONTEXT_LENGTH_EXCEEDED")
        told = verify_webhook(message.body, "secret", headers=message.headers)
        assert told["event"] == "batch.complete"
        assert told["data"] == {**status, "duration_ms": told["data"]["duration_ms"]}
    finally:
        assert server.stop() == 0
