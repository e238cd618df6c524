"""deploy/compose: valid by the Compose specification, and its parts fit together."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.files import DEPLOY, ROOT, dockerfile, image_environment, longest_stop_s, parsed, seconds, settings_of

SERVERS = ("inferno", "inferno-gpu")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
TEXT = (DEPLOY / "compose" / "compose.yaml").read_text()


def example_environment() -> dict[str, str]:
    lines = (DEPLOY / "compose" / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and line[0] != "#")


def project(**environ: str) -> dict[str, Any]:
    """The file as Compose reads it with these variables."""
    document = yaml.safe_load(_VARIABLE.sub(lambda match: environ.get(match[1]) or match[2] or "", TEXT))
    assert isinstance(document, dict)
    return document


@pytest.fixture(params=["defaults", "example"])
def services(request: pytest.FixtureRequest) -> dict[str, Any]:
    return project(**(example_environment() if request.param == "example" else {}))["services"]  # type: ignore[no-any-return]


def test_it_is_valid() -> None:
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(project(), json.loads(schema.read_text()))


def test_the_example_has_every_variable() -> None:
    used = {match[1] for match in _VARIABLE.finditer(TEXT)}
    assert used | {"COMPOSE_PROFILES"} == example_environment().keys()
    assert example_environment()["COMPOSE_PROFILES"] in project()["services"]["inferno"]["profiles"]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_has_settings_that_it_starts_with(services: dict[str, Any], name: str) -> None:
    service = services[name]
    given = {key: str(value) for key, value in service["environment"].items()}
    settings = settings_of({**image_environment(), **given})
    assert settings.engine["threads"] == 0  # as many as the container's limit allows
    assert seconds(service["stop_grace_period"]) >= longest_stop_s(settings)
    mounted = {volume.split(":")[1] for volume in service["volumes"]}
    assert mounted == {str(settings.data_dir), str(settings.models.dir)}


def test_servers_answer_to_one_name(services: dict[str, Any]) -> None:
    assert {alias for name in SERVERS for alias in services[name]["networks"]["default"]["aliases"]} == {"inferno"}
    profiles = [services[name]["profiles"] for name in SERVERS]
    assert profiles == [["cpu"], ["gpu"]]


def test_what_is_built_can_be_built(services: dict[str, Any]) -> None:
    arguments = {rest.partition("=")[0] for word, rest in dockerfile() if word == "ARG"}
    for name in SERVERS:
        build = services[name]["build"]
        context = (DEPLOY / "compose" / build["context"]).resolve()
        assert context == ROOT
        assert (context / build["dockerfile"]).is_file()
        assert build.get("args", {}).keys() <= arguments


def test_only_this_machine_reaches_it(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_is_confined(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
        assert not re.search(r":(latest|main)$|^[^:]+$", service["image"])


def test_what_is_mounted_is_there(services: dict[str, Any]) -> None:
    volumes = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    assert {volume for volume in volumes if "/" not in volume} == project()["volumes"].keys()
    assert all((DEPLOY / "compose" / volume).exists() for volume in volumes if "/" in volume)


def test_secrets_are_files_that_are_not_kept() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/deploy/compose/secrets/", "/deploy/compose/.env"} <= set(ignored)
    secrets = project()["secrets"]
    assert all(secret["file"].startswith("./secrets/") for secret in secrets.values())
    used = {name for service in project()["services"].values() for name in service.get("secrets", ())}
    assert used == secrets.keys()


# ---- Prometheus and Grafana ----


def mounts(service: str) -> dict[str, str]:
    """Path in the container -> path in deploy/compose."""
    pairs = [volume.split(":") for volume in project()["services"][service]["volumes"]]
    return {inside: outside for outside, inside, *_ in pairs}


def test_prometheus_finds_its_files_and_its_key() -> None:
    configuration = parsed("prometheus/prometheus.yml")
    assert set(configuration["rule_files"]) <= mounts("prometheus").keys()
    (command,) = [word for word in project()["services"]["prometheus"]["command"] if "config.file" in word]
    assert command.partition("=")[2] in mounts("prometheus")
    (job,) = configuration["scrape_configs"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    assert job["static_configs"] == [{"targets": ["inferno:8080"]}]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = parsed("compose/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = parsed("compose/provisioning/dashboards/inferno.yml")["providers"]
    shown = mounts("grafana")[provider["options"]["path"]]
    environment = project()["services"]["grafana"]["environment"]
    home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].removeprefix(provider["options"]["path"] + "/")
    assert (DEPLOY / "compose" / shown / home).is_file()
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
