"""Exits with 0 while the server of this container is ready. It is found by the settings that the server itself reads;
flags of its command line are not among them. Asked for twice a minute, so it imports little."""

from __future__ import annotations

import ssl
import sys
import urllib.request

from inferno.config import ServerSettings, load_settings

_PATIENCE_S = 8


def main() -> None:
    # Straight to this container, whatever proxy it has. Its certificate names the server to others, not as localhost.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323
    )
    try:
        opener.open(_address(load_settings().server) + "/readyz", timeout=_PATIENCE_S).close()
    except OSError as error:
        sys.exit(f"not ready: {error}")


def _address(server: ServerSettings) -> str:
    scheme = "http" if server.tls_cert is None else "https"
    host = "localhost" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"


if __name__ == "__main__":
    main()
