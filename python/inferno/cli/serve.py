"""`inferno serve`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from inferno import errors
from inferno.cli import options, output
from inferno.config import Settings
from inferno.models.catalogue import DEFAULT_MODEL
from inferno.models.registry import Registry
from inferno.server.run import serve as run_server
from inferno.telemetry import logs
from inferno.upgrade.check import Notice


@click.command()
@click.option("--bind", metavar="HOST:PORT", help="Address and port in one, instead of --host and --port.")
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on (8080; 0 takes a free one).")
@options.models_dir_option
@options.data_dir_option
@options.config_option
@click.option("--model", "preload", multiple=True, metavar="ID", help="Load at start; may be repeated.")
@click.option("--alias", "aliases", multiple=True, metavar="ID=FILE", help="A further id for a model or file.")
@click.option("--no-auth", is_flag=True, help="Ask for no key (loopback only).")
@click.option("--no-rate-limits", is_flag=True, help="Limit nobody.")
@click.option("--webhook-allow", multiple=True, metavar="CIDR", help="A private network that webhooks may go to.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain (PEM): serve HTTPS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key (PEM).")
@click.option("--pull-default", is_flag=True, help=f"Download {DEFAULT_MODEL} first when it is missing, and load it.")
@click.option("--log-level", help="debug, info, warning or error.")
@click.option("--log-format", help="text or json.")
@options.engine_options
def serve(**given: Any) -> None:
    """Serve models over HTTP until stopped."""
    pull_default = given.pop("pull_default")
    settings = _settings(given)
    if pull_default:
        settings = _with_default_model(settings, given)
    registry = Registry(settings.models.dir, settings.models.aliases)
    _check_typed(given, registry)
    logs.configure(settings.log.level, settings.log.format)
    model = next(iter([*settings.models.preload, *registry.ids()]), None)
    with Notice(settings, Path(sys.executable)) as notice:

        def ready(url: str, key: str | None, is_new: bool) -> None:
            _announce(settings, url, key, is_new, model)
            notice.begin()

        run_server(settings, ready)


def _settings(given: dict[str, Any], preload: tuple[str, ...] = ()) -> Settings:
    values = dict(given)
    flags = options.engine_flags(values)
    host, port = _address(values["bind"], values["host"], values["port"])
    flags |= {
        "server.host": host,
        "server.port": port,
        "auth.enabled": False if values["no_auth"] else None,
        "limits.enabled": False if values["no_rate_limits"] else None,
        "webhook.allow": list(values["webhook_allow"]) or None,
        "server.tls_cert": values["tls_cert"],
        "server.tls_key": values["tls_key"],
        "models.preload": [*values["preload"], *preload] or None,
        "models.aliases": _aliases(values["aliases"]) or None,
        "log.level": values["log_level"],
        "log.format": values["log_format"],
    }
    return options.settings_for(values["config_file"], values["models_dir"], values["data_dir"], **flags)


def _address(bind: str | None, host: str | None, port: int | None) -> tuple[str | None, int | None]:
    if bind is None:
        return host, port
    if host is not None or port is not None:
        raise click.UsageError("--bind says both; it does not go with --host or --port.")
    host, _, text = bind.rpartition(":")
    if not host or not (text.isascii() and text.isdigit()):
        raise click.BadParameter("must be HOST:PORT", param_hint="--bind")
    return host, int(text)


def _check_typed(given: dict[str, Any], registry: Registry) -> None:
    """What a flag names must be there. What the configuration names is tried, and told in the log if it fails: a
    server that starts by itself had better serve the rest. Raises ModelNotFound, InvalidRequest."""
    for model in given["preload"]:
        with options.suggestions(model):
            registry.get(model)
    for name, target in _aliases(given["aliases"]).items():
        with contextlib.suppress(errors.InvalidRequest):  # of a file that is not sound, loading it tells
            try:
                registry.get(name)
            except errors.ModelNotFound:
                raise errors.ModelNotFound(f"--alias {name}: there is no file or model {target}.") from None


def _aliases(pairs: tuple[str, ...]) -> dict[str, str]:
    result = {}
    for pair in pairs:
        name, equals, target = pair.partition("=")
        if not (name and equals and target):
            raise click.BadParameter("must be ID=FILE", param_hint="--alias")
        result[name] = str(Path(target).absolute()) if Path(target).exists() else target
    return result


def _with_default_model(settings: Settings, given: dict[str, Any]) -> Settings:
    if DEFAULT_MODEL not in Registry(settings.models.dir, settings.models.aliases).ids():
        from inferno.models.pull import pull  # brings an HTTP client, which a server has no use for

        output.err.print(f"Downloading {DEFAULT_MODEL} ...")
        bar, progress = output.download_progress(DEFAULT_MODEL)
        with bar:
            pull(DEFAULT_MODEL, settings.models.dir, progress)
    return settings if settings.models.preload else _settings(given, (DEFAULT_MODEL,))


def _announce(settings: Settings, url: str, key: str | None, is_new: bool, model: str | None) -> None:
    """The line that says the server is ready, with a command that can be pasted."""
    if key is not None and is_new:
        where = settings.data_dir / "api-key"
        print(f"A key was made and kept in {where} (shown this once): {key}", file=sys.stderr, flush=True)
    # A key that the operator keeps elsewhere is not repeated on a screen.
    shown = "$INFERNO_API_KEY" if settings.auth.api_key else f"$(cat {settings.data_dir / 'api-key'})"
    header = "" if key is None else f' -H "Authorization: Bearer {key if is_new else shown}"'
    # Greedy, so that what a new user sees first is the model's best guess, and the same each time.
    asked = {"model": model or "MODEL", "prompt": "The capital of France is", "max_tokens": 16, "temperature": 0}
    body = json.dumps(asked)
    print(f"Inferno is ready at {url}. Try:", flush=True)
    print(f"curl {url}/inference{header} -H 'Content-Type: application/json' -d '{body}'", flush=True)
