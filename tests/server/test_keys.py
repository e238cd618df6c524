"""Keys: made, kept, presented, compared."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from inferno import errors
from inferno.identity.keys import PERMISSIONS, KeyRing, presented_key, stored_key


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer  abc "}, "abc"),
        ({"x-api-key": "abc"}, "abc"),
        ({"authorization": "Basic abc", "x-api-key": "def"}, "def"),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer "}, None),
        ({"authorization": "abc"}, None),
        ({"x-api-key": " "}, None),
        ({}, None),
    ],
)
def test_where_keys_are_presented(headers: dict[str, str], key: str | None) -> None:
    assert presented_key(headers) == key


@pytest.mark.parametrize("key", ["wrong", "", "right ", "RIGHT", "r" * 1_000_000, "\x00", "ü", "' OR 1=1 --", "\udce9"])
def test_other_keys_are_refused(key: str) -> None:
    with pytest.raises(errors.AuthenticationFailed) as caught:
        KeyRing("right").authenticate({"authorization": f"Bearer {key}x"})
    assert key == "" or key not in caught.value.message


def test_the_key_opens_everything() -> None:
    caller = KeyRing("right").authenticate({"x-api-key": "right"})
    assert caller.permissions == PERMISSIONS
    assert 0 < caller.salt < 1 << 64


def test_without_a_key_everybody_is_anonymous() -> None:
    assert KeyRing(None).authenticate({"x-api-key": "any"}).id == "anonymous"


def test_salts_differ_between_servers() -> None:
    headers = {"x-api-key": "k"}
    assert KeyRing("k").authenticate(headers).salt != KeyRing("k").authenticate(headers).salt


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    key, is_new = stored_key(data_dir)
    assert is_new
    assert re.fullmatch(r"inf_[0-9a-f]{8}_[\w-]{32}", key)
    assert stat.S_IMODE((data_dir / "api-key").stat().st_mode) == 0o600
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert [path.name for path in data_dir.iterdir()] == ["api-key"]
    assert stored_key(data_dir) == (key, False)


def test_an_empty_key_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("\n")
    with pytest.raises(errors.ServiceUnavailable, match="empty"):
        stored_key(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ServiceUnavailable, match="cannot be kept"):
        stored_key(tmp_path / "file")
