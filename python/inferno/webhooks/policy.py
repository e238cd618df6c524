"""Which addresses the server may send to for somebody else.

Sources: the IANA special-purpose address registries (RFC 6890 and its updates), RFC 6052 (NAT64), RFC 4291.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Called with a host name and a port; gives addresses as text. Raises OSError.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


async def system_addresses(host: str, port: int) -> Sequence[str]:
    """What the machine's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How webhooks may leave the machine.

    Public addresses are permitted, others when a network of `allow` names them. Link-local addresses never are: cloud
    machines find their credentials there. `own_port` is the port that this server listens on, refused on this machine
    whatever `allow` says. `total_s` bounds one delivery from resolving the name to the end of the answer. `tls` None
    trusts the machine's certificate authorities and certifi's.
    """

    allow: tuple[Network, ...] = ()
    own_port: int | None = None
    total_s: float = 15.0
    resolve: Resolver = system_addresses
    tls: ssl.SSLContext | None = None

    def permits(self, address: Address, port: int) -> bool:
        """Whether to connect to `address`. An IPv6 address that stands for an IPv4 address must pass as both."""
        forms = (address, *_embedded(address))
        if any(form in network for form in forms for network in _LINK_LOCAL):
            return False
        if port == self.own_port and any(_is_here(form) for form in forms):
            return False
        return all(self._names(form) or (_is_public(form) and not _is_here(form)) for form in forms)

    def _names(self, address: Address) -> bool:
        return any(address in network for network in self.allow)


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_LINK_LOCAL = _networks("169.254.0.0/16", "fe80::/10")

#: Own tables, because those of the standard library differ between its patch releases.
_NOT_PUBLIC = _networks(
    "0.0.0.0/8",  # this network; Linux takes it for loopback
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # carrier-grade NAT
    "127.0.0.0/8",  # loopback
    "168.63.129.16/32",  # a public number that Azure's machines find their host under
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "2001::/23",  # protocol assignments, Teredo among them
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4
    "3fff::/20",  # documentation
)
#: All of IPv6 that is handed out for use; loopback, unique local, mapped, NAT64 and multicast lie outside.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
#: The IPv4 address is in the last 32 bits: NAT64 and stateless translation.
_TRANSLATED = _networks("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")


def _is_public(address: Address) -> bool:
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _embedded(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that packets to `address` may end at."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if any(address in network for network in _TRANSLATED):
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    inside = address.teredo or (address.ipv4_mapped, address.sixtofour)
    return tuple(ipv4 for ipv4 in inside if ipv4 is not None)


def _is_here(address: Address) -> bool:
    """Whether `address` is one of this machine. A datagram socket that is connected sends nothing; the kernel picks
    the address to send from, and for an address of the machine that is the address itself."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == address
    except OSError:  # no route: it is not here
        return False
