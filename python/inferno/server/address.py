"""Whose address a connection has."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import Scope


def client_address(scope: Scope, trusted_proxies: Sequence[str]) -> str:
    """The client's address, without its port. `X-Forwarded-For` is read from the right for as long as the hop that
    wrote it is one of the trusted networks; a header from anybody else is theirs to invent. Of several lines the last
    is the nearest hop's, as RFC 9110 (5.3) joins them."""
    client = scope.get("client")
    address = _plain(str(client[0])) if client else "unknown"
    forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
    while hops and _is_in(address, trusted_proxies):
        hop = hops.pop()
        if _parsed(hop) is None:
            break
        address = _plain(hop)
    return address


def subscriber(address: str) -> str:
    """Whom to count by an address: of IPv6 everybody has a network of 64 bits to choose from."""
    parsed = _parsed(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _plain(address: str) -> str:
    """A socket for both families spells IPv4 as ::ffff:192.0.2.1, which no network of IPv4 has."""
    parsed = _parsed(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return address if mapped is None else str(mapped)


def _is_in(address: str, networks: Sequence[str]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in ipaddress.ip_network(network) for network in networks)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
