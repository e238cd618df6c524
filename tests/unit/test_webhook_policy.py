import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferno.webhooks import policy as policy_module
from inferno.webhooks.policy import Policy

PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "168.63.129.15", "2606:4700::1111", "2a00:1450::1"]
REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:db8::1", "2002:808:808::1", "3fff::1", "4000::1", "fc00::1",
    "fd00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
]  # fmt: skip
LINK_LOCAL = [
    "169.254.169.254", "169.254.0.0", "fe80::1", "fe80::1%1", "febf::1", "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254", "::ffff:0:169.254.169.254", "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1", "2001:0:808:808::5601:5601",
]  # fmt: skip
EVERYTHING = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def permits(address: str, *allow: str, own_port: int | None = None, port: int = 443) -> bool:
    policy = Policy(allow=tuple(ipaddress.ip_network(text) for text in allow), own_port=own_port)
    return policy.permits(ipaddress.ip_address(address), port)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert permits(address)


@pytest.mark.acceptance("K5")
@pytest.mark.parametrize("address", REFUSED)
def test_other_addresses_only_when_they_are_named(address: str) -> None:
    assert not permits(address)
    assert not permits(address, "9.9.9.0/24", "2606:4700::/32")
    assert permits(address, "0.0.0.0/0", "::/0")


@pytest.mark.acceptance("K5")
@pytest.mark.parametrize("address", LINK_LOCAL)
def test_link_local_addresses_never(address: str) -> None:
    assert not permits(address)
    assert not permits(address, "0.0.0.0/0", "::/0", "169.254.0.0/16", "fe80::/10")


def test_naming_a_translator_does_not_name_what_is_behind_it() -> None:
    assert permits("64:ff9b::8.8.8.8", "64:ff9b::/96")
    assert not permits("64:ff9b::10.0.0.1", "64:ff9b::/96")
    assert permits("64:ff9b::10.0.0.1", "64:ff9b::/96", "10.0.0.0/8")
    assert not permits("2002:a00:1::1", "2002::/16")
    assert not permits("::ffff:127.0.0.1", "127.0.0.0/8")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::"])
def test_the_servers_own_port_even_when_the_address_is_named(address: str) -> None:
    assert permits(address, "0.0.0.0/0", "::/0", own_port=8080)
    assert not permits(address, "0.0.0.0/0", "::/0", own_port=8080, port=8080)


def test_the_servers_port_number_elsewhere() -> None:
    assert permits("8.8.8.8", own_port=8080, port=8080)


def test_which_addresses_are_here() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("no network but loopback")
        own = probe.getsockname()[0]
    assert policy_module._is_here(ipaddress.ip_address(own))
    for elsewhere in ("192.0.2.1", "8.8.8.8", "2001:db8::1"):
        assert not policy_module._is_here(ipaddress.ip_address(elsewhere))


def test_a_public_address_of_this_machine_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "_is_here", lambda address: str(address) == "8.8.8.8")
    assert not permits("8.8.8.8")
    assert permits("8.8.8.8", "8.8.8.8/32")
    assert not permits("8.8.8.8", "8.8.8.8/32", own_port=443)
    assert permits("8.8.4.4")


@given(st.ip_addresses())
def test_what_is_permitted_is_public_to_the_standard_library(address: ipaddress.IPv4Address) -> None:
    assert not Policy().permits(address, 443) or address.is_global
