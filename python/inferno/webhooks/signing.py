"""What is sent for an event, and how a receiver knows that it came from here.

Two signatures are made with one secret. The API document's stands in the payload and, over the bytes sent, in
`X-Inferno-Signature`. The other follows Standard Webhooks 1.0 (`webhook-id`, `webhook-timestamp`,
`webhook-signature`): it also covers the time of sending, so that a message cannot be replayed later.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets as random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from inferno import errors

MAX_SECRET_CHARACTERS = 512
_PREFIX = "whsec_"
_MISMATCH = "The webhook's signature does not match."


# ---- secrets ----


def new_secret() -> str:
    """`whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(random.token_bytes(32)).decode()


def check_secret(secret: str) -> None:
    """Refuse a secret that nothing can be signed with. Raises InvalidRequest(field="secret").

    Any text of 1 to 512 characters is one, but after `whsec_` there must be base64.
    """
    if not 1 <= len(secret) <= MAX_SECRET_CHARACTERS:
        raise errors.InvalidRequest(
            f"secret must have at least 1 and at most {MAX_SECRET_CHARACTERS} characters.", field="secret"
        )
    try:
        key = _standard_key(secret)
    except ValueError:  # binascii.Error and UnicodeEncodeError are
        key = b""
    if not key:
        raise errors.InvalidRequest("secret must be valid Unicode, and base64 after whsec_.", field="secret")


def _standard_key(secret: str) -> bytes:
    """The key for Standard Webhooks: what is base64 after `whsec_`, padded or not; else the text itself."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    text = secret.removeprefix(_PREFIX)
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


# ---- sending ----


def event_body(event: str, data: Mapping[str, Any], *, created: float, secret: str | None) -> bytes:
    """The body for an event of Unix time `created`: `{event, timestamp, data, signature}`, compact JSON in UTF-8.

    `data` is JSON without NaN and infinities. Without a secret `signature` is null.
    """
    timestamp = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = {"event": event, "timestamp": timestamp, "data": dict(data)}
    signature = None if secret is None else _hex(secret, _canonical(content))
    return _json({**content, "signature": signature})


def attempt_headers(
    body: bytes, *, event: str, delivery_id: str, sent: float, secrets: Sequence[str] = ()
) -> dict[str, str]:
    """The headers for one attempt at Unix time `sent`.

    `delivery_id` stays the same over retries. `secrets` are the ones in force, the current first: the first signs
    `X-Inferno-Signature`, all of them `webhook-signature`.
    """
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", delivery_id), "a dot would make the signed text ambiguous"
    result = {
        "Content-Type": "application/json",
        "X-Inferno-Event": event,
        "X-Inferno-Delivery": delivery_id,
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(sent)),
    }
    if secrets:
        signed = f"{delivery_id}.{int(sent)}.".encode() + body
        result["X-Inferno-Signature"] = _hex(secrets[0], body)
        result["webhook-signature"] = " ".join(_standard(secret, signed) for secret in secrets)
    return result


# ---- receiving ----


def verify_webhook(
    payload: bytes | str | Mapping[str, Any],
    secret: str,
    *,
    headers: Mapping[str, str] | None = None,
    tolerance_s: float | None = 300,
    now: float | None = None,
) -> dict[str, Any]:
    """The payload of a webhook that holders of `secret` sent; raises inferno.errors.AuthenticationFailed otherwise.

    With `headers` (names in any case) the Standard Webhooks signature over the raw body is checked, which must have
    been sent within `tolerance_s` seconds of `now` (Unix time, by default the present). None as `tolerance_s` takes a
    message of any age, and one whose only signature is `X-Inferno-Signature`. Without `headers` the signature inside
    the payload is checked; that says nothing about when it was sent.

    Give `payload` as it arrived. A parsed one can be checked without headers only. Raises TypeError for one with
    headers, and InvalidRequest for a secret that is none.
    """
    check_secret(secret)
    if headers is None:
        content = dict(payload) if isinstance(payload, Mapping) else _parsed(_raw(payload))
        _check_content(content, secret)
        return content
    if isinstance(payload, Mapping):
        raise TypeError("headers sign the body as it arrived: give it as bytes")
    raw = _raw(payload)
    given = {name.lower(): value for name, value in headers.items()}
    _check_headers(raw, given, secret, tolerance_s, time.time() if now is None else now)
    return _parsed(raw)


def _check_headers(raw: bytes, headers: Mapping[str, str], secret: str, tolerance_s: float | None, now: float) -> None:
    if tolerance_s is None and "webhook-signature" not in headers:
        return _check_equal(_hex(secret, raw), headers.get("x-inferno-signature", ""))
    sent, signatures = headers.get("webhook-timestamp", ""), headers.get("webhook-signature", "")
    if not re.fullmatch(r"[0-9]{1,12}", sent):
        raise errors.AuthenticationFailed("The webhook has no valid webhook-timestamp header.")
    signed = f"{headers.get('webhook-id', '')}.{sent}.".encode("utf-8", "surrogatepass") + raw
    _check_equal(_standard(secret, signed), *signatures.split(" "))
    if tolerance_s is not None and abs(now - int(sent)) > tolerance_s:
        raise errors.AuthenticationFailed("The webhook was not sent just now.")


def _check_content(content: Mapping[str, Any], secret: str) -> None:
    unsigned = {name: value for name, value in content.items() if name != "signature"}
    signature = content.get("signature")
    try:
        expected = _hex(secret, _canonical(unsigned))
    except (ValueError, TypeError, RecursionError):
        raise errors.AuthenticationFailed(_MISMATCH) from None
    _check_equal(expected, signature if isinstance(signature, str) else "")


def _check_equal(expected: str, *given: str) -> None:
    """Takes as long for a signature that is nearly right as for one that is not at all."""
    candidates = [text.encode("utf-8", "surrogatepass") for text in given]
    if not any(hmac.compare_digest(expected.encode(), candidate) for candidate in candidates):
        raise errors.AuthenticationFailed(_MISMATCH)


def _raw(payload: bytes | str) -> bytes:
    try:
        return payload.encode() if isinstance(payload, str) else bytes(payload)
    except UnicodeEncodeError:
        raise errors.AuthenticationFailed(_MISMATCH) from None


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise errors.AuthenticationFailed("The webhook's body is not a JSON object.")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


# ---- bytes that are signed, and signatures ----


def _canonical(content: Mapping[str, Any]) -> bytes:
    return _json(content, sort_keys=True)


def _json(content: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys).encode()


def _hex(secret: str, signed: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _standard(secret: str, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(_standard_key(secret), signed, "sha256")).decode()
