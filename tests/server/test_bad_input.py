"""G4, T40, T47: whatever arrives, the answer is the envelope with a 4xx, and nothing reaches an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from inferno.store.database import Database

from tests.fakes import FakeEngine
from tests.server.conftest import CHAT, MODEL, PROMPT, make_services
from tests.server.test_json import BAD_JSON

BODIES: dict[str, dict[str, Any]] = {
    "/inference": PROMPT,
    "/inference/stream": PROMPT,
    "/embeddings": {"model": MODEL, "input": "x"},
    "/v1/chat/completions": CHAT,
    "/v1/completions": PROMPT,
    "/v1/embeddings": {"model": MODEL, "input": "x"},
    f"/models/{MODEL}/load": {},
}
PATHS = list(BODIES)
NOT_OBJECTS = {"list": b"[]", "string": b'"x"', "number": b"1", "true": b"true"}
VALUES: list[Any] = [
    -1,
    0,
    2**31,
    2**63,
    -(2**63),
    10**30,
    1e308,
    -0.0,
    "1",
    True,
    [],
    {},
    "",
    "\x00",
    [[]],
    {"a": [1]},
]


def assert_refused(response: httpx.Response, status: int = 400, code: str = "INVALID_REQUEST") -> None:
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.acceptance("G4", "S6")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("data", [*BAD_JSON.values(), *NOT_OBJECTS.values()], ids=[*BAD_JSON, *NOT_OBJECTS])
def test_malformed_bodies(client: httpx.Client, engine: FakeEngine, path: str, data: bytes) -> None:
    assert_refused(client.post(path, content=data, headers={"content-type": "application/json"}))
    assert engine.submitted.empty()


@pytest.mark.acceptance("G4")
@pytest.mark.parametrize("path", [path for path in PATHS if "/load" not in path])
@pytest.mark.parametrize("data", [b"", b"null", b"{}"])
def test_bodies_with_nothing_in_them(client: httpx.Client, path: str, data: bytes) -> None:
    assert_refused(client.post(path, content=data))


@pytest.mark.acceptance("G2", "G4", "S6", "X3")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json-seq"},
        {"content-encoding": "gzip"},
        {"content-encoding": "identity, br"},
    ],
    ids=str,
)
def test_other_media_are_415(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    response = client.post(path, content=b'{"a": 1}', headers=headers)
    assert_refused(response, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.acceptance("G2")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "application/json; charset=utf-8"}, {"content-type": "APPLICATION/JSON"}]
)
def test_json_is_accepted_by_name_or_silence(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    request = client.build_request("POST", path, json=BODIES[path])
    del request.headers["content-type"]
    request.headers.update(headers)
    assert client.send(request).status_code == 200


@pytest.mark.acceptance("G4", "S6", "X3")
@pytest.mark.parametrize("path", PATHS)
def test_large_bodies_are_413(connect: Callable[..., httpx.Client], engine: FakeEngine, path: str) -> None:
    client = connect(make_services(engine, server__max_body_bytes=1024))
    assert_refused(client.post(path, json={**BODIES[path], "x": "y" * 1024}), 413, "PAYLOAD_TOO_LARGE")


def fields() -> list[tuple[str, str]]:
    return [(path, name) for path, body in BODIES.items() for name in (*body, *EXTRA.get(path, ()))]


EXTRA = {
    "/inference": ("max_tokens", "temperature", "stop", "seed", "logit_bias", "logprobs", "stream", "grammar"),
    "/v1/chat/completions": ("n", "max_completion_tokens", "stream_options", "top_logprobs", "response_format"),
    "/v1/completions": ("n", "best_of", "echo", "stop_token_ids", "repetition_penalty"),
    "/embeddings": ("encoding_format", "dimensions"),
    f"/models/{MODEL}/load": ("gpu_layers", "context_size", "prefix_cache"),
}


@pytest.mark.acceptance("G4", "S6")
@pytest.mark.parametrize(("path", "field"), fields(), ids=str)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_no_value_of_any_field_is_a_server_error(client: httpx.Client, path: str, field: str, value: Any) -> None:
    response = client.post(path, json={**BODIES[path], field: value})
    assert response.status_code < 500
    if response.status_code != 200:
        assert response.json()["error"]["code"] in ("INVALID_REQUEST", "MODEL_NOT_FOUND")


@pytest.mark.acceptance("G4", "X1")
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/auth/login", {"username": "a\0b", "password": "x"}, 400),
        ("POST", "/auth/refresh", {"refresh_token": "a\0b"}, 400),
        ("GET", "/batch/a%00b", None, 400),
        ("GET", "/webhooks/a%00b", None, 400),
        ("POST", "/webhooks/deliveries/a%00b/replay", None, 400),
        ("POST", "/models/a%00b/load", None, 404),
        ("POST", "/models/a%00b/unload", None, 404),
    ],
    ids=str,
)
def test_nul_is_told_by_every_database(
    connect: Callable[..., httpx.Client],
    engine: FakeEngine,
    any_database: Database,
    method: str,
    path: str,
    body: dict[str, str] | None,
    status: int,
) -> None:
    client = connect(make_services(engine, database=any_database))
    assert client.request(method, path, json=body).status_code == status
