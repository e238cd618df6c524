import base64
import hashlib
import hmac
import json
import time
from typing import Any

import inferno
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferno import errors, verify_webhook
from inferno.webhooks import signing
from inferno.webhooks.signing import attempt_headers, check_secret, event_body, new_secret
from standardwebhooks import Webhook, WebhookVerificationError

DATA = {"request_id": "req_123", "model": "llama-2-7b", "tokens_generated": 50, "duration_ms": 234}
CREATED = 1704110400  # 2024-01-01T12:00:00Z
SECRET = "webhook_secret_key"
WHSEC = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def message(*secrets: str, data: dict[str, Any] = DATA, sent: float | None = None) -> tuple[bytes, dict[str, str]]:
    body = event_body("inference.complete", data, created=CREATED, secret=secrets[0] if secrets else None)
    sent = time.time() if sent is None else sent
    return body, attempt_headers(body, event="inference.complete", delivery_id="msg_1", sent=sent, secrets=secrets)


# ---- what is sent ----


@pytest.mark.acceptance("K2", "K3")
def test_the_payload_is_the_documents() -> None:
    body, _ = message(SECRET)
    signed = (
        b'{"data":{"duration_ms":234,"model":"llama-2-7b","request_id":"req_123","tokens_generated":50},'
        b'"event":"inference.complete","timestamp":"2024-01-01T12:00:00Z"}'
    )
    signature = "sha256=" + hmac.new(b"webhook_secret_key", signed, hashlib.sha256).hexdigest()
    content = json.loads(body)
    assert list(content) == ["event", "timestamp", "data", "signature"]
    assert content == {
        "event": "inference.complete",
        "timestamp": "2024-01-01T12:00:00Z",
        "data": DATA,
        "signature": signature,
    }
    # The same as computed by `openssl dgst -sha256 -hmac webhook_secret_key`.
    assert signature == "sha256=ad84f411f27b49bb437f9eb604f229236a5be3d3d35d825fbd8a0a4b17168541"


@pytest.mark.acceptance("K3")
def test_text_is_signed_as_utf8_and_sorted_at_all_depths() -> None:
    data = {"z": {"b": 1, "a": [{"d": "\u00e9\U0001f600", "c": None}]}, "a": '\u2028"\\\n'}
    body, _ = message(SECRET, data=data)
    signed = (
        '{"data":{"a":"\u2028\\"\\\\\\n","z":{"a":[{"c":null,"d":"\u00e9\U0001f600"}],"b":1}},'
        '"event":"inference.complete","timestamp":"2024-01-01T12:00:00Z"}'
    ).encode()
    assert json.loads(body)["signature"][7:] == hmac.new(SECRET.encode(), signed, "sha256").hexdigest()
    assert "\u00e9\U0001f600".encode() in body


@pytest.mark.acceptance("K2", "K3")
def test_the_headers() -> None:
    body, headers = message(WHSEC, sent=1700000000.9)
    by_hand = hmac.new(bytes(range(32)), b"msg_1.1700000000." + body, "sha256").digest()
    assert headers == {
        "Content-Type": "application/json",
        "X-Inferno-Event": "inference.complete",
        "X-Inferno-Delivery": "msg_1",
        "X-Inferno-Signature": "sha256=" + hmac.new(WHSEC.encode(), body, "sha256").hexdigest(),
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1," + base64.b64encode(by_hand).decode(),
    }


@pytest.mark.acceptance("K4")
def test_without_a_secret_nothing_is_signed() -> None:
    body, headers = message()
    assert json.loads(body)["signature"] is None
    assert not [name for name in headers if "signature" in name.lower()]
    assert headers["webhook-id"] == "msg_1"


def test_the_time_of_sending_is_signed_anew_for_each_attempt() -> None:
    (first, before), (second, later) = message(SECRET, sent=1000), message(SECRET, sent=1030)
    assert first == second
    assert before["webhook-id"] == later["webhook-id"]
    assert before["webhook-signature"] != later["webhook-signature"]


def test_numbers_that_are_not_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        message(SECRET, data={"x": float("nan")})


# ---- secrets ----


def test_a_new_secret() -> None:
    one, other = new_secret(), new_secret()
    assert one != other
    assert one.startswith("whsec_")
    assert len(base64.b64decode(one.removeprefix("whsec_"), validate=True)) == 32
    check_secret(one)


@pytest.mark.parametrize(
    "secret", ["x", SECRET, "p\u00e4ss w\u00f6rd", WHSEC, WHSEC.rstrip("="), "whsec_QQ", "x" * 512]
)
def test_secrets(secret: str) -> None:
    check_secret(secret)
    body, headers = message(secret)
    assert verify_webhook(body, secret, headers=headers) == json.loads(body)


@pytest.mark.parametrize(
    "secret", ["", "x" * 513, "whsec_", "whsec_?", "whsec_QUJD-_", "whsec_A", "whsec_\u00e9", "\ud800"]
)
def test_texts_that_are_no_secrets(secret: str) -> None:
    for use in (check_secret, lambda secret: verify_webhook(b"{}", secret)):
        with pytest.raises(errors.InvalidRequest) as caught:
            use(secret)
        assert caught.value.field == "secret"
        assert secret in ("", "whsec_") or secret not in caught.value.message


# ---- another's reading: the package of Standard Webhooks ----


def _for_the_package(secret: str) -> str:
    """As docs/webhooks.md says."""
    return secret if secret.startswith("whsec_") else base64.b64encode(secret.encode()).decode()


@pytest.mark.parametrize("secret", [WHSEC, SECRET, "p\u00e4ss", "whsec", new_secret()])
def test_the_package_verifies(secret: str) -> None:
    body, headers = message(secret, data={**DATA, "text": "\u00e9\U0001f600\u2028"})
    assert Webhook(_for_the_package(secret)).verify(body, headers) == json.loads(body)


def test_the_package_verifies_either_secret_while_they_rotate() -> None:
    old, new = new_secret(), new_secret()
    body, headers = message(new, old)
    for secret in (old, new):
        assert Webhook(secret).verify(body, headers) == json.loads(body)
        assert verify_webhook(body, secret, headers=headers) == json.loads(body)
    assert len(headers["webhook-signature"].split(" ")) == 2
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(int(time.time()) - 1)},
        {"webhook-signature": "v1," + base64.b64encode(bytes(32)).decode()},
    ],
)
def test_the_package_refuses_what_was_changed(change: dict[str, str]) -> None:
    body, headers = message(WHSEC, sent=time.time() + 10)
    with pytest.raises(WebhookVerificationError):
        Webhook(WHSEC).verify(body, headers | change)
    with pytest.raises(WebhookVerificationError):
        Webhook(WHSEC).verify(body + b" ", headers)


@given(st.binary(min_size=1, max_size=64), st.text(max_size=20), st.integers(0, 10**9))
def test_our_reading_and_the_packages_are_one(key: bytes, text: str, offset: int) -> None:
    """Signed by the package, verified by us."""
    from datetime import UTC, datetime

    secret = "whsec_" + base64.b64encode(key).decode()
    body = json.dumps({"event": text, "signature": None})
    sent = datetime.fromtimestamp(offset, UTC)
    headers = {
        "Webhook-Id": "msg_x",
        "Webhook-Timestamp": str(offset),
        "Webhook-Signature": Webhook(secret).sign("msg_x", sent, body),
    }
    assert verify_webhook(body, secret, headers=headers, now=offset)["event"] == text


# ---- our own verifier ----


@pytest.mark.acceptance("K3")
@pytest.mark.parametrize("form", [bytes, bytes.decode, json.loads, bytearray])
def test_the_signature_in_the_payload(form: Any) -> None:
    body, _ = message(SECRET)
    assert inferno.verify_webhook(form(body), SECRET) == json.loads(body)


@pytest.mark.acceptance("K3")
def test_the_signature_in_the_payload_survives_other_spelling() -> None:
    body, _ = message(SECRET, data={"x": "\u00e9", "n": 1.5, "deep": {"b": [], "a": {}}})
    respelt = json.dumps(json.loads(body), indent=3, sort_keys=True)
    assert verify_webhook(respelt, SECRET)["data"]["x"] == "\u00e9"


@pytest.mark.acceptance("K3")
@pytest.mark.parametrize(
    "change",
    [
        {"event": "batch.complete"},
        {"timestamp": "2024-01-01T12:00:01Z"},
        {"data": {**DATA, "tokens_generated": 51}},
        {"more": 1},
        {"signature": None},
        {"signature": "sha256="},
        {"signature": "sha256=" + "0" * 64},
        {"signature": ["sha256"]},
        {"signature": "\ud800"},
    ],
)
def test_a_payload_that_was_changed(change: dict[str, Any]) -> None:
    body, _ = message(SECRET)
    for payload in (json.loads(body) | change, json.dumps(json.loads(body) | change)):
        with pytest.raises(errors.AuthenticationFailed):
            verify_webhook(payload, SECRET)


def test_the_signature_of_another() -> None:
    body, headers = message(SECRET)
    for given_headers in (None, headers):
        with pytest.raises(errors.AuthenticationFailed, match="does not match"):
            verify_webhook(body, "another", headers=given_headers)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"a":NaN}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        "\ud800",
        {"a": {1, 2}},
    ],
)
def test_what_is_no_payload(payload: Any) -> None:
    with pytest.raises(errors.AuthenticationFailed):
        verify_webhook(payload, SECRET)


@pytest.mark.acceptance("K3")
def test_headers_sign_every_byte() -> None:
    body, headers = message(SECRET)
    assert verify_webhook(body.decode(), SECRET, headers={name.title(): text for name, text in headers.items()})
    for changed in (body + b" ", body[:-1], body.replace(b"50", b"51"), json.dumps(json.loads(body)).encode()):
        with pytest.raises(errors.AuthenticationFailed):
            verify_webhook(changed, SECRET, headers=headers)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "1000001"},
        {"webhook-timestamp": "01000000"},
        {"webhook-timestamp": "-1000000"},
        {"webhook-timestamp": "1e6"},
        {"webhook-timestamp": ""},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v2,abc v1a,def \u00e9 \ud800"},
        {"webhook-id": "\ud800"},
    ],
)
def test_headers_that_were_changed(change: dict[str, str]) -> None:
    body, headers = message(SECRET, sent=1000000)
    assert verify_webhook(body, SECRET, headers=headers, now=1000000)
    for tolerance_s in (300, None):
        with pytest.raises(errors.AuthenticationFailed):
            verify_webhook(body, SECRET, headers=headers | change, now=1000000, tolerance_s=tolerance_s)


def test_the_time_of_sending() -> None:
    body, headers = message(SECRET, sent=1000000)
    for now in (1000000 - 300, 1000000, 1000000 + 300):
        assert verify_webhook(body, SECRET, headers=headers, now=now)
    for now in (1000000 - 301, 1000000 + 301, None):
        with pytest.raises(errors.AuthenticationFailed, match="just now"):
            verify_webhook(body, SECRET, headers=headers, now=now)
    assert verify_webhook(body, SECRET, headers=headers, now=1000000 + 301, tolerance_s=302)
    assert verify_webhook(body, SECRET, headers=headers, tolerance_s=None)


@pytest.mark.acceptance("K3")
def test_the_documents_header_alone_needs_a_tolerance_of_none() -> None:
    """Else whoever replays a message could leave out the header that tells its age."""
    body, headers = message(SECRET)
    alone = {"X-Inferno-Signature": headers["X-Inferno-Signature"]}
    with pytest.raises(errors.AuthenticationFailed, match="webhook-timestamp"):
        verify_webhook(body, SECRET, headers=alone)
    assert verify_webhook(body, SECRET, headers=alone, tolerance_s=None)
    for changed in ({"X-Inferno-Signature": "sha256=" + "0" * 64}, {}):
        with pytest.raises(errors.AuthenticationFailed):
            verify_webhook(body, SECRET, headers=changed, tolerance_s=None)


def test_a_parsed_payload_has_no_raw_body() -> None:
    body, headers = message(SECRET)
    with pytest.raises(TypeError, match="bytes"):
        verify_webhook(json.loads(body), SECRET, headers=headers)


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def record(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(signing.hmac, "compare_digest", record)
    body, headers = message(SECRET)
    verify_webhook(body, SECRET)
    verify_webhook(body, SECRET, headers=headers)
    assert [len(a) for a, _ in compared] == [71, 47]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text(), _JSON, max_size=5), st.text(min_size=1, max_size=20).filter(lambda s: s[:6] != "whsec_")
)
def test_round_trips(data: dict[str, Any], secret: str) -> None:
    body, headers = message(secret, data=data)
    assert verify_webhook(body, secret)["data"] == data
    assert verify_webhook(body, secret, headers=headers)["data"] == data
