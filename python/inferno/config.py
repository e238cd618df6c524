"""Settings: defaults < configuration file (TOML) < environment < flags.

Each setting is written once, in `SETTINGS` (engine options come from the engine's own table). This module is the
only reader of the environment. Unknown names, wrong types and unsafe combinations are errors, all told at once.
"""

from __future__ import annotations

import copy
import difflib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from inferno import _core, errors

MIB = 1024 * 1024


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that begin with the same word. What is secret is masked when they are printed."""

    def __repr__(self) -> str:
        secrets = {setting.key.rpartition(".")[2] for setting in SETTINGS if setting.secret}
        shown = (
            f"{name}={'********' if value and name in secrets else value!r}"
            for name, value in msgspec.structs.asdict(self).items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class ServerSettings(Section, frozen=True, kw_only=True):
    host: str
    port: int
    max_body_bytes: int
    request_timeout_s: float
    stream_write_timeout_s: float
    keepalive_s: float
    drain_s: float
    metrics_public: bool
    cors_origins: list[str]
    allowed_hosts: list[str]
    trusted_proxies: list[str]
    tls_cert: Path | None
    tls_key: Path | None


class AuthSettings(Section, frozen=True, kw_only=True):
    enabled: bool
    api_key: str
    token_ttl_s: float
    refresh_ttl_s: float


class LimitSettings(Section, frozen=True, kw_only=True):
    enabled: bool
    requests_per_minute: int
    requests_per_hour: int
    tokens_per_minute: int
    concurrent_requests: int
    logins_per_minute: int
    storage: str


class StoreSettings(Section, frozen=True, kw_only=True):
    url: str


class BatchSettings(Section, frozen=True, kw_only=True):
    max_items: int
    max_queued_items: int
    retention_days: float


class WebhookSettings(Section, frozen=True, kw_only=True):
    allow: list[str]
    secret: str


class ModelSettings(Section, frozen=True, kw_only=True):
    dir: Path
    autoload: bool
    max_loaded: int
    memory_budget_bytes: int
    preload: list[str]
    aliases: dict[str, str]


class LogSettings(Section, frozen=True, kw_only=True):
    level: str
    format: str


class MetricsSettings(Section, frozen=True, kw_only=True):
    custom_series: int


class TraceSettings(Section, frozen=True, kw_only=True):
    capacity: int
    sample_ratio: float
    otlp_endpoint: str


class UpgradeSettings(Section, frozen=True, kw_only=True):
    package: str
    index: str
    channel: str
    check: bool


class Explained(msgspec.Struct, frozen=True):
    """One final value and where it came from: default, file, environment or flag."""

    key: str
    value: Any
    source: str
    help: str


class Settings(Section, frozen=True, kw_only=True):
    server: ServerSettings
    auth: AuthSettings
    limits: LimitSettings
    store: StoreSettings
    batch: BatchSettings
    webhook: WebhookSettings
    webhooks: tuple[dict[str, Any], ...]
    engine: dict[str, Any]
    models: ModelSettings
    log: LogSettings
    metrics: MetricsSettings
    traces: TraceSettings
    upgrade: UpgradeSettings
    data_dir: Path
    explained: list[Explained]

    def explain(self) -> list[tuple[str, Any, str]]:
        """(key, final value, source) for each setting; secrets are masked."""
        return [(row.key, row.value, row.source) for row in self.explained]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One row: its key is `section.name` in TOML and `INFERNO_SECTION_NAME` in the environment."""

    key: str
    kind: type
    default: Any
    help: str
    min: float | None = None
    max: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    short_env: str = ""

    @property
    def env(self) -> str:
        """The name to show; the full one is read too."""
        return self.short_env or self.full_env

    @property
    def full_env(self) -> str:
        return "INFERNO_" + self.key.upper().replace(".", "_")


SETTINGS: tuple[Setting, ...] = (
    Setting(
        key="data_dir",
        kind=Path,
        default="",
        help="Where keys and state are kept; empty: the user's data directory.",
    ),
    Setting(
        key="webhooks",
        kind=tuple,
        default=(),
        secret=True,
        help="Tables `[[webhooks]]` with webhook_url, events, secret: told what all users do. In the environment JSON.",
    ),
    Setting(
        key="server.host",
        kind=str,
        default="127.0.0.1",
        help="Address to listen on.",
        short_env="INFERNO_HOST",
    ),
    Setting(
        key="server.port",
        kind=int,
        default=8080,
        min=0,
        max=65535,
        help="Port to listen on; 0 takes a free one.",
        short_env="INFERNO_PORT",
    ),
    Setting(
        key="server.max_body_bytes",
        kind=int,
        default=32 * MIB,
        min=1024,
        max=1024 * MIB,
        help="Largest request body.",
    ),
    Setting(
        key="server.request_timeout_s",
        kind=float,
        default=300.0,
        min=0.1,
        max=86400,
        help="Longest time a request may take.",
    ),
    Setting(
        key="server.stream_write_timeout_s",
        kind=float,
        default=30.0,
        min=0.1,
        max=3600,
        help="How long a stream waits for a client that does not read.",
    ),
    Setting(
        key="server.keepalive_s",
        kind=float,
        default=15.0,
        min=0.05,
        max=3600,
        help="Silence after which a stream sends a comment line.",
    ),
    Setting(
        key="server.drain_s",
        kind=float,
        default=30.0,
        min=0,
        max=3600,
        help="How long running requests may go on when the server stops.",
    ),
    Setting(key="server.metrics_public", kind=bool, default=False, help="Serve /metrics without a key."),
    Setting(
        key="server.cors_origins",
        kind=list,
        default=[],
        help="Origins that browsers may call from; none by default.",
    ),
    Setting(
        key="server.allowed_hosts",
        kind=list,
        default=[],
        help="Host names answered to besides loopback and server.host.",
    ),
    Setting(
        key="server.trusted_proxies",
        kind=list,
        default=[],
        help="Networks whose X-Forwarded-For is believed.",
    ),
    Setting(key="server.tls_cert", kind=Path, default="", help="Certificate chain (PEM); empty: no TLS."),
    Setting(key="server.tls_key", kind=Path, default="", help="The certificate's private key (PEM)."),
    Setting(key="auth.enabled", kind=bool, default=True, help="Ask for a key; may be off on loopback only."),
    Setting(
        key="auth.api_key",
        kind=str,
        default="",
        secret=True,
        help="A fixed key, of printable ASCII; empty: one is generated at first start.",
        short_env="INFERNO_API_KEY",
    ),
    Setting(
        key="auth.token_ttl_s",
        kind=float,
        default=86400.0,
        min=60,
        max=30 * 86400,
        help="How long a login's token is valid.",
    ),
    Setting(
        key="auth.refresh_ttl_s",
        kind=float,
        default=30 * 86400.0,
        min=60,
        max=366 * 86400,
        help="How long a login can be renewed.",
    ),
    Setting(key="limits.enabled", kind=bool, default=True, help="Limit how much each caller may ask for."),
    *(
        Setting(key=f"limits.{name}", kind=int, default=default, min=0, max=10**9, help=help_text)
        for name, default, help_text in (
            ("requests_per_minute", 60, "Requests of one key, user or address in a minute; 0 is unlimited."),
            ("requests_per_hour", 1000, "The same in an hour; 0 is unlimited."),
            ("tokens_per_minute", 10000, "Prompt and completion tokens in a minute; 0 is unlimited."),
            ("concurrent_requests", 10, "Requests at once; 0 is unlimited."),
            ("logins_per_minute", 10, "Login attempts of one address, and for one user, in a minute; 0 is unlimited."),
        )
    ),
    Setting(
        key="limits.storage",
        kind=str,
        default="",
        secret=True,
        help="Where counters are kept; empty: in this process, else a URL such as redis://host:6379/0.",
    ),
    Setting(
        key="store.url",
        kind=str,
        default="",
        secret=True,
        help="The database: sqlite:///FILE or postgresql://...; empty: inferno.db in the data directory.",
        short_env="INFERNO_DATABASE_URL",
    ),
    Setting(
        key="batch.max_items",
        kind=int,
        default=10_000,
        min=1,
        max=1_000_000,
        help="Most requests in one batch.",
    ),
    Setting(
        key="batch.max_queued_items",
        kind=int,
        default=100_000,
        min=1,
        max=10_000_000,
        help="Most requests of one user's batches that wait.",
    ),
    Setting(
        key="batch.retention_days",
        kind=float,
        default=30.0,
        min=0.01,
        max=3650,
        help="How long a finished batch and its results are kept.",
    ),
    Setting(
        key="webhook.allow",
        kind=list,
        default=[],
        help="Networks that webhooks may go to although they are private, such as 10.0.0.0/8 or 127.0.0.1/32.",
    ),
    Setting(
        key="webhook.secret",
        kind=str,
        default="",
        secret=True,
        help="Signs webhooks of batches whose owner has no secret.",
    ),
    Setting(
        key="models.dir",
        kind=Path,
        default="",
        help="Where model files are; empty: models in the data directory.",
    ),
    Setting(key="models.autoload", kind=bool, default=True, help="Load a model when a request first names it."),
    Setting(
        key="models.max_loaded",
        kind=int,
        default=0,
        min=0,
        max=1000,
        help="Most models in memory at once; 0 is unlimited.",
    ),
    Setting(
        key="models.memory_budget_bytes",
        kind=int,
        default=0,
        min=0,
        max=1 << 50,
        help="Memory for loaded models; 0 takes 90 % of the machine's.",
    ),
    Setting(key="models.preload", kind=list, default=[], help="Models loaded at start."),
    Setting(key="models.aliases", kind=dict, default={}, help="Further ids: alias = file or id."),
    Setting(
        key="log.level",
        kind=str,
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="Least severe messages shown.",
    ),
    Setting(key="log.format", kind=str, default="text", choices=("text", "json"), help="Form of a log line."),
    Setting(
        key="metrics.custom_series",
        kind=int,
        default=1000,
        min=0,
        max=100_000,
        help="Most time series of custom metrics; a histogram has one for each bucket and two more.",
    ),
    Setting(
        key="traces.capacity",
        kind=int,
        default=1000,
        min=0,
        max=100_000,
        help="Spans kept in memory for /traces.",
    ),
    Setting(
        key="traces.sample_ratio",
        kind=float,
        default=1.0,
        min=0,
        max=1,
        help="Share of traces recorded, of those that no caller has decided about.",
    ),
    Setting(
        key="traces.otlp_endpoint",
        kind=str,
        default="",
        help="URL that spans are sent to, as in http://localhost:4318/v1/traces; empty: none.",
    ),
    Setting(
        key="upgrade.package",
        kind=str,
        default="inferno-server",
        help="The distribution that `inferno upgrade` looks for and installs.",
    ),
    Setting(
        key="upgrade.index",
        kind=str,
        default="",
        help="Address of the package index (http, https or file); empty: pip's own.",
    ),
    Setting(
        key="upgrade.channel",
        kind=str,
        default="stable",
        choices=("stable", "beta"),
        help="Which versions count: releases, or versions before a release too.",
    ),
    Setting(
        key="upgrade.check",
        kind=bool,
        default=False,
        help="Look for a newer version when the server starts, once a day at most, and log it; installs nothing.",
    ),
)


def engine_settings() -> tuple[Setting, ...]:
    """The engine's own table, as rows of section `engine`."""
    kinds = {"integer": int, "number": float, "boolean": bool, "string": str, "path": Path}
    return tuple(
        Setting(
            key=f"engine.{row['name']}",
            kind=kinds[row["type"]],
            default=row["default"],
            min=None if row["type"] in ("string", "path") else row["min"],
            max=None if row["type"] in ("string", "path") else row["max"],
            choices=tuple(row["choices"]),
            help=row["help"],
        )
        for row in _core.engine_fields()
    )


def all_settings() -> dict[str, Setting]:
    return {setting.key: setting for setting in (*SETTINGS, *engine_settings())}


def default_config_file(environ: Mapping[str, str] | None = None) -> Path:
    environ = os.environ if environ is None else environ
    if named := environ.get("INFERNO_CONFIG"):
        return Path(named).expanduser()
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "inferno" / "config.toml"


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """For what can be had again; building keeps llama.cpp's source there."""
    environ = os.environ if environ is None else environ
    if named := environ.get("INFERNO_CACHE_DIR"):
        return Path(named).expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferno"


def load_settings(
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force. `flags` maps keys like `server.port` to values; None means not given.

    A file that is named (here or by INFERNO_CONFIG) must exist; the default one need not. Raises InvalidRequest
    whose message lists every problem.
    """
    environ = os.environ if environ is None else environ
    rows = all_settings()
    problems: list[str] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers = (
        ("file", _from_file(config_file, environ, problems)),
        ("environment", _from_environment(environ, rows, problems)),
        ("flag", {key: value for key, value in (flags or {}).items() if value is not None}),
    )
    for source, layer in layers:
        for key, raw in layer.items():
            if key not in rows:
                problems.append(f"{source}: there is no setting {key}{_suggestion(key, rows)}")
                continue
            try:
                values[key] = _converted(rows[key], raw)
                sources[key] = source
            except ValueError as error:
                problems.append(f"{source}: {key} {error}")
    settings = _assemble(rows, values, sources, environ)
    problems.extend(_unsafe(settings))
    if problems:
        raise errors.InvalidRequest("The configuration is not valid: " + "; ".join(problems) + ".", problems=problems)
    return settings


def _from_file(named: Path | None, environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    path = named or default_config_file(environ)
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        if named is not None or environ.get("INFERNO_CONFIG"):
            problems.append(f"the configuration file {path} does not exist")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"the configuration file {path} cannot be read: {error}")
        return {}
    flat: dict[str, Any] = {}
    for section, content in document.items():
        if isinstance(content, dict):
            flat.update({f"{section}.{name}": value for name, value in content.items()})
        else:
            flat[section] = content
    return flat


#: Variables of ours that are no settings of this table.
_OTHER_VARIABLES = frozenset({"INFERNO_CONFIG"})


def _from_environment(environ: Mapping[str, str], rows: Mapping[str, Setting], problems: list[str]) -> dict[str, str]:
    """Short names first, so that a full name wins. Only names that begin like a section's can be misspelt ones."""
    names = {setting.env: key for key, setting in rows.items()}
    names.update({setting.full_env: key for key, setting in rows.items()})
    sections = tuple({f"INFERNO_{key.partition('.')[0].upper()}_" for key in rows if "." in key})
    for name in environ:
        if name.startswith(sections) and name not in names and name not in _OTHER_VARIABLES:
            problems.append(f"environment: there is no variable {name}{_suggestion(name, names)}")
    return {key: environ[name] for name, key in names.items() if environ.get(name)}


def _suggestion(name: str, known: Iterable[str]) -> str:
    """The likeliest of `known`, by the whole name or by its last part."""
    by_part = {key.rpartition(".")[2]: key for key in known}
    near = difflib.get_close_matches(name, [*by_part.values(), *by_part], n=1)
    return f" (did you mean {by_part.get(near[0], near[0])}?)" if near else ""


_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_QUANTITY = re.compile(r"\s*([+-]?[0-9]{1,18})\s*([A-Za-z]*)\s*")


def _converted(setting: Setting, raw: Any) -> Any:
    """`raw` (of TOML, or text of the environment or a flag) as the setting's type; raises ValueError."""
    value = _TYPED[setting.kind](setting, raw)
    if setting.choices and value not in setting.choices:
        raise ValueError("must be one of " + ", ".join(setting.choices))
    low, high = setting.min, setting.max
    if low is not None and high is not None and not low <= value <= high:
        raise ValueError(f"must be at least {low:g} and at most {high:g}")
    return value


def _to_int(setting: Setting, raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and (match := _QUANTITY.fullmatch(raw)):
        unit = match[2].upper()
        if not unit or (setting.key.endswith("_bytes") and unit in _UNITS):
            return int(match[1]) * _UNITS[unit]
    raise ValueError("must be an integer")


def _to_float(_: Setting, raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError("must be a number")
    try:
        return float(raw)
    except ValueError:
        raise ValueError("must be a number") from None


def _to_bool(_: Setting, raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if isinstance(raw, str) and raw.lower() in words:
        return words[raw.lower()]
    raise ValueError("must be true or false")


def _to_str(setting: Setting, raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError("must be text")
    return raw.strip() if setting.secret else raw  # a mounted secret ends in a newline that is no part of it


def _to_path(_: Setting, raw: Any) -> Path | str:
    if not isinstance(raw, str | Path):
        raise ValueError("must be a path")
    return raw and Path(raw).expanduser()  # empty is the default, not the working directory


def _to_list(_: Setting, raw: Any) -> list[str]:
    items = raw.split(",") if isinstance(raw, str) else raw
    if not _is_texts(items):
        raise ValueError("must be a list of texts")
    return [item.strip() for item in items if item.strip()]


def _is_texts(raw: Any) -> bool:
    return isinstance(raw, list | tuple) and all(isinstance(item, str) for item in raw)


def _to_dict(_: Setting, raw: Any) -> dict[str, str]:
    if isinstance(raw, str):
        pairs = [item.partition("=") for item in raw.split(",") if item.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError("must be of the form name=value,name=value")
        raw = {name.strip(): value.strip() for name, _, value in pairs}
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise ValueError("must be a table of texts")
    return raw


def _to_tables(_: Setting, raw: Any) -> tuple[dict[str, Any], ...]:
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError:
            raise ValueError("must be JSON") from None
    if not isinstance(raw, list | tuple) or not all(isinstance(item, dict) for item in raw):
        raise ValueError("must be a list of tables")
    for item in raw:
        if unknown := item.keys() - {"webhook_url", "events", "secret"}:
            raise ValueError(f"knows no {min(unknown)}: it has webhook_url, events and secret")
        if not isinstance(item.get("webhook_url"), str) or not _is_texts(item.get("events")):
            raise ValueError("needs webhook_url (text) and events (list of texts) in each table")
        if not isinstance(item.get("secret"), str | None):
            raise ValueError("needs a secret that is text, or none, in each table")
    return tuple(raw)


_TYPED: dict[type, Any] = {
    tuple: _to_tables,
    int: _to_int,
    float: _to_float,
    bool: _to_bool,
    str: _to_str,
    Path: _to_path,
    list: _to_list,
    dict: _to_dict,
}


def _assemble(
    rows: Mapping[str, Setting],
    values: Mapping[str, Any],
    sources: Mapping[str, str],
    environ: Mapping[str, str],
) -> Settings:
    final = {key: values.get(key, copy.copy(setting.default)) for key, setting in rows.items()}
    data_home = Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    final["data_dir"] = final["data_dir"] or data_home / "inferno"
    final["models.dir"] = final["models.dir"] or final["data_dir"] / "models"
    for key in ("server.tls_cert", "server.tls_key"):
        final[key] = final[key] or None
    section: dict[str, dict[str, Any]] = {}
    for key, value in final.items():
        if "." in key:
            section.setdefault(key.partition(".")[0], {})[key.partition(".")[2]] = value
    return Settings(
        server=ServerSettings(**section["server"]),
        auth=AuthSettings(**section["auth"]),
        limits=LimitSettings(**section["limits"]),
        store=StoreSettings(**section["store"]),
        batch=BatchSettings(**section["batch"]),
        webhook=WebhookSettings(**section["webhook"]),
        webhooks=final["webhooks"],
        engine=section["engine"],
        models=ModelSettings(**section["models"]),
        log=LogSettings(**section["log"]),
        metrics=MetricsSettings(**section["metrics"]),
        traces=TraceSettings(**section["traces"]),
        upgrade=UpgradeSettings(**section["upgrade"]),
        data_dir=final["data_dir"],
        explained=[
            Explained(key, _shown(rows[key], value), sources.get(key, "default"), rows[key].help)
            for key, value in final.items()
        ],
    )


def _shown(setting: Setting, value: Any) -> Any:
    if setting.secret and value:
        return "********"
    return str(value) if isinstance(value, Path) else value


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


#: What a client can send in a header.
_SENDABLE = re.compile(r"[!-~]*")


def _unsafe(settings: Settings) -> list[str]:
    problems = []
    if not settings.auth.enabled and not is_loopback(settings.server.host):
        problems.append(f"auth.enabled = false needs a loopback server.host, not {settings.server.host}")
    if settings.auth.api_key and len(settings.auth.api_key) < 8 and not is_loopback(settings.server.host):
        problems.append("auth.api_key must have at least 8 characters")
    if not _SENDABLE.fullmatch(settings.auth.api_key):
        problems.append("auth.api_key must be printable ASCII without spaces")
    if settings.traces.otlp_endpoint and not settings.traces.otlp_endpoint.startswith(("http://", "https://")):
        problems.append("traces.otlp_endpoint must be an http:// or https:// URL")
    if (settings.server.tls_cert is None) != (settings.server.tls_key is None):
        problems.append("server.tls_cert and server.tls_key go together")
    for key in ("server.trusted_proxies", "webhook.allow"):
        section, _, name = key.partition(".")
        problems.extend(f"{key} {problem}" for problem in _networks(getattr(getattr(settings, section), name)))
    if "*" in settings.server.cors_origins and not settings.auth.enabled:
        problems.append('server.cors_origins = ["*"] needs auth.enabled')
    return problems


def _networks(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            yield f"has {text!r}, which is no network such as 10.0.0.0/8"


def default_toml() -> str:
    """A commented configuration file with every setting at its default."""
    lines = ["# Inferno. Each line shows a default; remove the # to change it.", ""]
    section = ""
    for key, setting in all_settings().items():
        head, _, name = key.rpartition(".")
        if head != section:
            section = head
            lines += ["", f"[{head}]"]
        lines += [f"# {setting.help}", f"# {name} = {_toml(setting.default)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, tuple):
        return "[]"
    return str(value) if isinstance(value, int | float) else json.dumps(value)


def reference() -> str:
    """The settings as a Markdown table, for the documentation."""
    lines = ["| setting | default | environment | meaning |", "|---|---|---|---|"]
    for key, setting in all_settings().items():
        names = " or ".join(f"`{name}`" for name in dict.fromkeys((setting.env, setting.full_env)))
        lines.append(f"| `{key}` | `{_toml(setting.default)}` | {names} | {setting.help}{_bounds(setting)} |")
    return "\n".join(lines) + "\n"


def _bounds(setting: Setting) -> str:
    if setting.choices:
        return f" One of {', '.join(setting.choices)}."
    if setting.kind in (int, float) and setting.min is not None and setting.max is not None:
        low, high = (int(bound) if bound == int(bound) else bound for bound in (setting.min, setting.max))
        return f" {low} to {high}."
    return ""


_PAGE = """\
# Configuration

A setting is taken from the first of these that has it:

1. a command-line flag;
2. the environment;
3. the configuration file: the one named by `--config` or `INFERNO_CONFIG`, else `~/.config/inferno/config.toml`
   (`$XDG_CONFIG_HOME` is respected), which need not exist;
4. its default.

`inferno config show` prints each setting's final value and where it came from; `inferno config init` writes a
commented file with all defaults.

In the file a setting `section.name` is `name` under `[section]`. In the environment it is `INFERNO_SECTION_NAME`; a
few have a short name as well, and the full name wins over the short one. An empty variable counts as absent. Lists
are written with commas (`a,b`), tables as `name=value,name=value`. A size in bytes may have a unit: `8GiB`, `500 MB`.
White space around a secret is no part of it.

A setting that does not exist, a value of the wrong type or out of range, a variable `INFERNO_SECTION_...` that names
no setting and an unsafe combination are errors; the server does not start and says all of them at once. Unsafe are:
`auth.enabled = false` with a `server.host` that is not loopback, an `auth.api_key` of less than 8 characters on such
a host, and `server.cors_origins = ["*"]` without authentication.

## Settings

"""


def reference_page() -> str:
    """`docs/configuration.md`, which a test holds to this."""
    return _PAGE + reference()
