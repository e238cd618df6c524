"""How commands reach a server that runs: where it is, which key it takes, what its refusals mean."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click
import httpx
import msgspec

from inferno import __version__, errors
from inferno.cli import options
from inferno.config import Settings, is_loopback
from inferno.identity.local_key import local_key_file

T = TypeVar("T")
F = TypeVar("F", bound=Any)

_CONNECT_S = 3.0
_ANSWER_S = 30.0
#: What a proxy says when the server behind it is not there.
_GATEWAY = (502, 503, 504)
_EVERYWHERE = ("0.0.0.0", "::", "[::]")  # noqa: S104


def server_options(command: F) -> F:
    """The flags of every command that asks a server; `connect` takes their values."""
    for option in (
        options.data_dir_option,
        options.config_option,
        click.option(
            "--ca-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Certificates (PEM) to trust beside the system's.",
        ),
        click.option("--key", help="API key; else INFERNO_API_KEY, else, on this machine, that of the data directory."),
        click.option("--url", help="Where the server is (http://localhost:8080)."),
    ):
        command = option(command)
    return command


def connect(
    url: str | None = None,
    key: str | None = None,
    ca_file: Path | None = None,
    config_file: Path | None = None,
    data_dir: Path | None = None,
    answer_s: float = _ANSWER_S,
) -> Client:
    """A client of the server that the flags, or else the settings, name. Asks nothing yet. Raises InvalidRequest."""
    settings = options.settings_for(config_file, data_dir=data_dir)
    address = _address(url or default_url(settings))
    if url is None:
        ca_file = ca_file or settings.server.tls_cert
    return Client(address, key or _known_key(settings, address), _trust(ca_file), answer_s)


def default_url(settings: Settings) -> str:
    """Where `inferno serve` with the same settings listens. Raises InvalidRequest when that cannot be known."""
    server = settings.server
    if server.port == 0:
        raise errors.InvalidRequest("server.port is 0, any free port: say with --url where the server is.", field="url")
    scheme = "http" if server.tls_cert is None else "https"
    local = is_loopback(server.host) or server.host in _EVERYWHERE
    bare = server.host.strip("[]")
    host = "localhost" if local else f"[{bare}]" if ":" in bare else bare
    return f"{scheme}://{host}:{server.port}"


def _address(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.rstrip("/"))
    except httpx.InvalidURL as error:
        raise errors.InvalidRequest(f"--url is not an address: {error}.", field="url") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise errors.InvalidRequest("--url must be of the form http://HOST:PORT or https://HOST:PORT.", field="url")
    return url


def _known_key(settings: Settings, address: httpx.URL) -> str | None:
    """The administrator's key of the data directory is for this machine's server and is sent nowhere else."""
    if settings.auth.api_key:
        return settings.auth.api_key
    if not is_loopback(address.host) and address.host != settings.server.host.strip("[]"):
        return None
    path = local_key_file(settings.data_dir)
    try:
        return path.read_text("utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(f"The key file {path} cannot be read ({error}); give --key.", field="key") from None


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    """The system's authorities, and what the file names, be it a server's own certificate."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            raise errors.InvalidRequest(f"The certificates of {ca_file} cannot be read: {error}.") from None
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def path_of(*parts: str) -> str:
    """A path; ids that people type may hold anything. Raises NotFound for what cannot be an id."""
    for part in parts:
        if part in ("", ".", ".."):
            raise errors.NotFound(f"There is nothing with the id '{part}'.")
    return "".join("/" + quote(part, safe="") for part in parts)


class Client:
    """Calls one server, over connections that it keeps. Every method raises the error that the server tells of, and
    ServiceUnavailable when there is no answer. `answer_s`: seconds of silence that count as none."""

    def __init__(self, url: httpx.URL, key: str | None, trust: ssl.SSLContext, answer_s: float) -> None:
        if key is not None and not (key.isascii() and key.isprintable()):
            raise errors.InvalidRequest("The key must be printable ASCII.", field="key")
        self.url = str(url)
        self._has_key = key is not None
        self._answer_s = answer_s
        headers = {"User-Agent": f"inferno/{__version__}"} | ({"Authorization": f"Bearer {key}"} if key else {})
        timeout = httpx.Timeout(answer_s, connect=min(_CONNECT_S, answer_s))
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, verify=trust, trust_env=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        return self._json(self._ask("GET", path))

    def get_as(self, path: str, kind: type[T]) -> T:
        """The answer as a struct, which may have more fields."""
        try:
            return msgspec.convert(self.get(path), kind)
        except msgspec.ValidationError as error:
            raise errors.InternalError(f"{self.url}{path} did not answer as this version expects: {error}.") from None

    def text(self, path: str) -> str:
        return self._ask("GET", path).text

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        return self._json(self._ask("POST", path, body, headers))

    def delete(self, path: str) -> Any:
        return self._json(self._ask("DELETE", path))

    def _ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body, headers=headers)
        except httpx.TimeoutException:
            what = f"The server at {self.url} did not answer within {self._answer_s:g} seconds."
            raise errors.ServiceUnavailable(what) from None
        except httpx.TransportError as error:
            raise errors.ServiceUnavailable(f"No server answers at {self.url}: {error}.") from None
        except httpx.HTTPError as error:
            raise errors.InternalError(f"{self.url} did not answer in HTTP: {error}.") from None
        if not answer.is_success:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: httpx.Response) -> errors.InfernoError:
        try:
            error = errors.from_dict(answer.json()["error"])
        except (ValueError, TypeError, LookupError, AttributeError):
            kind = errors.ServiceUnavailable if answer.status_code in _GATEWAY else errors.InternalError
            return kind(f"{self.url} answered with status {answer.status_code} and no reason; is it Inferno?")
        if isinstance(error, errors.AuthenticationFailed) and not self._has_key:
            return errors.AuthenticationFailed(f"{self.url} asks for a key: give --key or set INFERNO_API_KEY.")
        return error

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise errors.InternalError(f"{self.url} answered with something that is no JSON; is it Inferno?") from None
