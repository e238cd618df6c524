"""Whose address a connection has."""

from __future__ import annotations

import pytest
from inferno.server.address import client_address, subscriber


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("::ffff:10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "198.51.100.1", "192.0.2.7"),
    ],
)
def test_ipv4_in_ipv6_is_ipv4(peer: str, forwarded: str, address: str) -> None:
    scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", forwarded.encode())]}
    assert client_address(scope, ["10.0.0.0/8"]) == address


def test_a_network_of_ipv6_is_one_subscriber() -> None:
    assert subscriber("2001:db8::1") == subscriber("2001:db8::2") != subscriber("2001:db8:0:1::1")
    assert subscriber("192.0.2.7") == "192.0.2.7"
