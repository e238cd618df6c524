import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from inferno import _core, config, errors
from inferno.config import Settings

_DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose default directories are empty."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}


def _load(home: dict[str, str], toml: str = "", *, flags: dict[str, Any] | None = None, **environ: str) -> Settings:
    file = Path(home["XDG_CONFIG_HOME"]) / "inferno" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(toml)
    return config.load_settings(None, flags, {**home, **environ})


def _problems(home: dict[str, str], toml: str = "", **environ: str) -> list[str]:
    with pytest.raises(errors.InvalidRequest) as caught:
        _load(home, toml, **environ)
    problems: list[str] = caught.value.details["problems"]
    assert all(problem in caught.value.message for problem in problems)
    return problems


@pytest.mark.acceptance("G1")
def test_defaults(home: dict[str, str], tmp_path: Path) -> None:
    settings = config.load_settings(None, None, home)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.auth.enabled
    assert settings.data_dir == tmp_path / "data" / "inferno"
    assert settings.models.dir == settings.data_dir / "models"
    assert settings.engine == {row["name"]: row["default"] for row in _core.engine_fields()}


def test_later_sources_win(home: dict[str, str]) -> None:
    toml = "[server]\nport = 1001\nkeepalive_s = 3\nhost = '::1'\n"
    settings = _load(home, toml, flags={"server.host": "localhost", "server.port": None}, INFERNO_PORT="1002")
    assert (settings.server.keepalive_s, settings.server.port, settings.server.host) == (3.0, 1002, "localhost")
    sources = {row.key: row.source for row in settings.explained}
    assert sources["server.keepalive_s"] == "file"
    assert sources["server.port"] == "environment"
    assert sources["server.host"] == "flag"
    assert sources["server.drain_s"] == "default"


@pytest.mark.parametrize("name", ["INFERNO_PORT", "INFERNO_SERVER_PORT"])
def test_short_and_full_environment_names(home: dict[str, str], name: str) -> None:
    assert _load(home, **{name: "1003"}).server.port == 1003


def test_every_setting_has_its_environment_name(home: dict[str, str]) -> None:
    text = {int: "1", float: "1", bool: "true", str: "x", Path: "/x", list: "a, b", dict: "a=b", tuple: "[]"}
    special = {"server.host": "localhost", "server.trusted_proxies": "10.0.0.0/8", "webhook.allow": "10.0.0.0/8"}
    special["traces.otlp_endpoint"] = "http://x"
    for key, setting in config.all_settings().items():
        if key.startswith("server.tls_"):
            continue  # go together: a test of their own
        value = setting.choices[0] if setting.choices else text[setting.kind]
        value = str(int(setting.min)) if setting.kind in (int, float) and setting.min and setting.min > 1 else value
        value = special.get(key, value)
        settings = _load(home, **{"INFERNO_" + key.upper().replace(".", "_"): value})
        assert {row.key for row in settings.explained if row.source == "environment"} == {key}


@pytest.mark.acceptance("S1")
def test_certificate_and_key_go_together(home: dict[str, str]) -> None:
    settings = _load(home, INFERNO_SERVER_TLS_CERT="/c.pem", INFERNO_SERVER_TLS_KEY="/k.pem")
    assert (settings.server.tls_cert, settings.server.tls_key) == (Path("/c.pem"), Path("/k.pem"))
    assert "tls_cert" in _problems(home, "[server]\ntls_key = '/k.pem'\n")[0]


@pytest.mark.parametrize("text", ["x", "{}", '["x"]', '[{"webhook_url": "u"}]', '[{"url": "u", "events": []}]'])
def test_webhooks_are_tables(home: dict[str, str], text: str) -> None:
    assert "webhooks" in _problems(home, INFERNO_WEBHOOKS=text)[0]


@pytest.mark.parametrize(("name", "value"), [("secret", "5"), ("events", "[5]"), ("events", '[["x"]]')])
def test_fields_of_webhooks_have_their_types(home: dict[str, str], name: str, value: str) -> None:
    fields = {"webhook_url": "'https://example.org'", "events": "[]", name: value}
    lines = [f"{key} = {text}" for key, text in fields.items()]
    (problem,) = _problems(home, "\n".join(["[[webhooks]]", *lines]))
    assert problem.startswith("file: webhooks ")
    assert name in problem


def test_networks_are_checked(home: dict[str, str]) -> None:
    problems = _problems(home, "[server]\ntrusted_proxies = ['10.0.0.0/8', 'x']\n[webhook]\nallow = ['10.0.0.1/8']\n")
    assert ["'x'" in problems[0], "'10.0.0.1/8'" in problems[1], len(problems)] == [True, True, 2]


def test_no_secret_is_shown(home: dict[str, str]) -> None:
    canary = "canary-31337"
    names = [setting.full_env for setting in config.all_settings().values() if setting.secret and setting.kind is str]
    webhook = {"webhook_url": "https://example.org", "events": [], "secret": canary}
    settings = _load(home, **dict.fromkeys(names, canary), INFERNO_WEBHOOKS=json.dumps([webhook]))
    assert len(names) >= 4
    assert canary not in repr(settings)
    assert canary not in str(settings.explain())


def test_unknown_names_are_errors_with_a_suggestion(home: dict[str, str]) -> None:
    assert "server.port" in _problems(home, "[server]\nprot = 1\n")[0]
    assert "models.dir" in _problems(home, "[model]\ndir = '/x'\n")[0]
    assert "INFERNO_SERVER_PORT" in _problems(home, INFERNO_SERVER_PROT="1")[0]


def test_other_programs_variables_are_left_alone(home: dict[str, str]) -> None:
    _load(home, INFERNO_CACHE_DIR="/x", INFERNO_LLAMA_CPP_DIR="/x", INFERNOSERVER="1")


def test_all_problems_are_told_at_once(home: dict[str, str]) -> None:
    toml = "port = 1\n[server]\nport = 70000\nmetrics_public = 1\nhost = 8\n[engine]\nparallel = 'many'\n"
    problems = _problems(home, toml, INFERNO_LOG_LEVEL="loud")
    for key in ("port", "server.port", "server.metrics_public", "server.host", "engine.parallel", "log.level"):
        assert any(f" {key} " in problem for problem in problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("8GiB", 8 << 30), ("8 gib", 8 << 30), ("1TiB", 1 << 40), ("512 MB", 512_000_000), ("7B", 7), ("7", 7)],
)
def test_sizes_may_have_units(home: dict[str, str], text: str, expected: int) -> None:
    assert _load(home, f"[models]\nmemory_budget_bytes = '{text}'\n").models.memory_budget_bytes == expected


@pytest.mark.parametrize("text", ["8GiBs", "GiB", "-1", "1.5.2GiB", "0x10", "8 8", "\u0663"])
def test_sizes_that_are_none(home: dict[str, str], text: str) -> None:
    assert "models.memory_budget_bytes" in _problems(home, INFERNO_MODELS_MEMORY_BUDGET_BYTES=text)[0]


def test_units_belong_to_sizes_only(home: dict[str, str]) -> None:
    assert "server.port" in _problems(home, INFERNO_PORT="8KB")[0]


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "-1", ""])
def test_numbers_out_of_range(home: dict[str, str], value: str) -> None:
    assert "server.drain_s" in _problems(home, f"[server]\ndrain_s = '{value}'\n")[0]


@pytest.mark.acceptance("A7")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_no_authentication_only_on_loopback(home: dict[str, str], host: str) -> None:
    assert "auth.enabled" in _problems(home, f"[auth]\nenabled = false\n[server]\nhost = '{host}'\n")[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_no_authentication_on_loopback(home: dict[str, str], host: str) -> None:
    assert not _load(home, f"[auth]\nenabled = false\n[server]\nhost = '{host}'\n").auth.enabled


def test_secrets_are_not_shown(home: dict[str, str]) -> None:
    settings = _load(home, INFERNO_API_KEY="sesame-open-wide")
    assert settings.auth.api_key == "sesame-open-wide"
    assert "sesame" not in repr(settings)
    assert "sesame" not in repr(settings.auth)
    assert ("auth.api_key", "********", "environment") in settings.explain()


@pytest.mark.acceptance("A7")
def test_a_mounted_secret_may_end_in_a_newline(home: dict[str, str]) -> None:
    settings = _load(home, INFERNO_API_KEY=" sesame\r\n", INFERNO_WEBHOOK_SECRET="open\n")
    assert (settings.auth.api_key, settings.webhook.secret) == ("sesame", "open")


@pytest.mark.acceptance("A7")
@pytest.mark.parametrize("key", ["open sesame", "s\u00e9same", "sesame\x00", "se\nsame", "s\udce9same"])
def test_a_key_that_nobody_could_send_is_refused(home: dict[str, str], key: str) -> None:
    (problem,) = _problems(home, INFERNO_API_KEY=key)
    assert problem == "auth.api_key must be printable ASCII without spaces"


def test_paths_of_the_engine_may_begin_at_home(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    settings = _load(home, INFERNO_ENGINE_PREFIX_STORE_PATH="~/prefixes")
    assert settings.engine["prefix_store_path"] == Path("/home/ada/prefixes")
    assert _core.validate_engine_options(settings.engine)["prefix_store_path"] == "/home/ada/prefixes"


def test_a_named_file_must_exist(home: dict[str, str], tmp_path: Path) -> None:
    config.load_settings(None, None, home)
    for arguments in ((tmp_path / "absent.toml", home), (None, {**home, "INFERNO_CONFIG": "~/absent.toml"})):
        with pytest.raises(errors.InvalidRequest, match="does not exist"):
            config.load_settings(arguments[0], None, arguments[1])


def test_a_file_that_is_no_toml(home: dict[str, str]) -> None:
    assert "cannot be read" in _problems(home, "[server")[0]
    file = Path(home["XDG_CONFIG_HOME"]) / "inferno" / "config.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(errors.InvalidRequest, match="cannot be read"):
        config.load_settings(None, None, home)


def test_lists_and_tables(home: dict[str, str]) -> None:
    settings = _load(home, "[models.aliases]\ngpt = 'a.gguf'\n", INFERNO_MODELS_PRELOAD="a, org/b")
    assert settings.models.aliases == {"gpt": "a.gguf"}
    assert settings.models.preload == ["a", "org/b"]
    assert _load(home, INFERNO_MODELS_ALIASES="x=a.gguf,y=b").models.aliases == {"x": "a.gguf", "y": "b"}
    assert "models.aliases" in _problems(home, INFERNO_MODELS_ALIASES="x")[0]
    assert "models.aliases" in _problems(home, "[models.aliases]\nx = 1\n")[0]


def test_settings_do_not_share_their_defaults(home: dict[str, str]) -> None:
    _load(home).server.cors_origins.append("*")
    assert _load(home).server.cors_origins == []


def test_the_example_file_states_the_defaults(home: dict[str, str]) -> None:
    lines = config.default_toml().splitlines()
    assert all(line.startswith(("#", "[")) or not line for line in lines)
    uncommented = re.sub(r"(?m)^# (?=\w+ = )", "", config.default_toml())
    tomllib.loads(config.default_toml())
    defaults = config.load_settings(None, None, home)
    assert [row[:2] for row in _load(home, uncommented).explain()] == [row[:2] for row in defaults.explain()]


def test_the_reference_page_is_current() -> None:
    assert (_DOCS / "configuration.md").read_text() == config.reference_page()
