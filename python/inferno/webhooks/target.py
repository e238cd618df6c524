"""The URL of a receiver, read once and strictly: what is checked is what is dialled.

URL parsers disagree about backslashes, user names, numbers as hosts and letters that look like others. Here a URL is
what RFC 3986 allows and a little less; whatever two parsers could read differently is refused.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from inferno import errors

MAX_URL_CHARACTERS = 2048

_URL = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:[/?][A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]*)?)"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
#: A name that ends like this is an IPv4 address to some resolvers: 127.1, 2130706433, 0x7f.1.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Target(NamedTuple):
    """`host` is a name or address in lower case, without brackets; `path` begins with / and has the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"


def check_url(url: str) -> Target:
    """The parts of `url`, without asking the network. Raises InvalidRequest(field="webhook_url")."""
    if len(url) > MAX_URL_CHARACTERS:
        raise _invalid(f"must be at most {MAX_URL_CHARACTERS} characters long")
    if not url.lower().startswith(("http://", "https://")):
        raise _invalid("must begin with https:// or http://")
    if "@" in re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        raise _invalid("must not have a user name or password")
    match = _URL.fullmatch(url)
    if match is None:
        raise _invalid("must be a URL in ASCII without spaces, backslashes and fragment")
    scheme, host, path = match["scheme"].lower(), match["host"].lower().strip("[]"), match["path"]
    if not (_is_ipv6(host) if match["host"].startswith("[") else _is_name(host)):
        raise _invalid("must have a host name, four decimal numbers or an IPv6 address in brackets as its host")
    port = int(match["port"] or _default_port(scheme))
    if not 1 <= port <= 65535:
        raise _invalid("must have a port of 1 to 65535")
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")


def _invalid(problem: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"webhook_url {problem}.", field="webhook_url")


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_name(host: str) -> bool:
    """A DNS name, or an IPv4 address in its one canonical form."""
    labels = host.split(".")
    if not _NUMBER.fullmatch(labels[-1]):
        return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
