from __future__ import annotations

import pytest
from inferno import errors
from inferno.config import UpgradeSettings
from inferno.upgrade import index


def _settings(package: str = "inferno-server", address: str = "") -> UpgradeSettings:
    return UpgradeSettings(package=package, index=address, channel="stable", check=False)


@pytest.mark.parametrize("name", ["inferno-server", "a", "A.b_c-9", "0"])
def test_names_of_packages(name: str) -> None:
    assert index.source(_settings(package=name)).package == name


@pytest.mark.parametrize("name", ["", "-r", "a b", "a\n", "a==1", "a[x]", "./a", "a;b", "naïve", "\u017f", "_a", "a."])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        index.source(_settings(package=name))
    assert caught.value.field == "upgrade.package"


@pytest.mark.parametrize(
    "address", ["", "https://example.org/simple", "http://[::1]:8080/simple/", "file:///srv/index", "https://h:1/a/b"]
)
def test_addresses(address: str) -> None:
    assert index.source(_settings(address=address)).index == address


@pytest.mark.parametrize(
    "address",
    [
        "example.org/simple",
        "ftp://example.org",
        "git+https://example.org/x",
        "-i http://x",
        "https://",
        "https:///simple",
        "https://user@example.org",
        "https://user:word@example.org/simple",
        "https://example.org/simple?x=1",
        "https://example.org/simple#x",
        "https://example.org/a b",
        "https://example.org/\n",
        "https://[::1",
        "https://example.org:port",
        "file://host/srv",
        "https://exämple.org",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        index.source(_settings(address=address))
    assert caught.value.field == "upgrade.index"
    assert "word" not in caught.value.message.replace("password", "")


def test_versions_are_written_in_one_way() -> None:
    assert index.version("v1.0.0-Beta.1") == "1.0.0b1"


@pytest.mark.parametrize(
    "text", ["", "x", "1.0;", "--pre", "1.0 2.0", "\u0661.0", "==1.0", "1.0\x1b[31m", "9" * 100 + "x"]
)
def test_versions_that_are_none(text: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="is not a version") as caught:
        index.version(text)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 100
