"""deploy/kubernetes: valid by Kubernetes' own schemas, as it stands and as the overlays change it."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml
from inferno import errors
from inferno.server.routes import route_table

from tests.deploy.files import DEPLOY, dockerfile, image_environment, longest_stop_s, parsed, settings_of

VERSION = "1.33"
BASE = DEPLOY / "kubernetes" / "base"


def _pointed(document: Any, path: str) -> tuple[Any, str]:
    """What holds the place that a JSON Pointer means, and the place in it."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path.removeprefix("/").split("/")]
    for part in parents:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document, last


def _patch(document: Any, operations: list[dict[str, Any]]) -> None:
    for operation in operations:
        holder, place = _pointed(document, operation["path"])
        if operation["op"] == "remove":
            del holder[place]
        elif isinstance(holder, list):
            assert place == "-"
            holder.append(operation["value"])
        else:
            assert place not in holder
            holder[place] = operation["value"]


def rendered(overlay: str) -> dict[str, Any]:
    """Kind -> object, as `kubectl kustomize` makes them of what our overlays use: resources and JSON patches."""
    here = DEPLOY / "kubernetes" / overlay
    kustomization = yaml.safe_load((here / "kustomization.yaml").read_text())
    assert kustomization.keys() <= {"apiVersion", "kind", "resources", "patches", "images", "labels"}
    objects: dict[str, Any] = {}
    for resource in kustomization["resources"]:
        if resource == "../base":
            objects |= rendered("base")
        else:
            document = yaml.safe_load((here / resource).read_text())
            objects[document["kind"]] = copy.deepcopy(document)  # anchors are shared until then
    for patch in kustomization.get("patches", ()):
        target = objects[patch["target"]["kind"]]
        assert target["metadata"]["name"] == patch["target"]["name"]
        _patch(target, yaml.safe_load(patch["patch"]))
    return objects


@pytest.fixture(params=["base", "scaled", "gpu"])
def objects(request: pytest.FixtureRequest) -> dict[str, Any]:
    return rendered(request.param)


def pod_of(objects: dict[str, Any]) -> dict[str, Any]:
    return objects["StatefulSet"]["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def server_of(objects: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(objects)["containers"]
    return container  # type: ignore[no-any-return]


def environment() -> dict[str, str]:
    secret = parsed("kubernetes/base/secret.example.yaml")["stringData"]
    return {**image_environment(), **rendered("base")["ConfigMap"]["data"], **secret}


def test_each_object_is_valid(objects: dict[str, Any]) -> None:
    for document in objects.values():
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_example_of_a_secret_is_valid() -> None:
    kubernetes_validate.validate(parsed("kubernetes/base/secret.example.yaml"), VERSION, strict=True)


def test_each_manifest_is_in_a_kustomization() -> None:
    """But for an example and what is another program's configuration."""
    for directory in ("base", "scaled", "gpu", "monitoring"):
        here = DEPLOY / "kubernetes" / directory
        files = {path.name for path in here.iterdir()} - {"kustomization.yaml"}
        named = {name for name in parsed(f"kubernetes/{directory}/kustomization.yaml")["resources"] if name[0] != "."}
        assert files - named <= {"secret.example.yaml", "adapter-rules.yaml"}
        assert named <= files


def test_its_settings_are_those_of_a_server_that_starts(objects: dict[str, Any]) -> None:
    by_name = {variable["name"]: "1" for variable in server_of(objects).get("env", [])}
    by_name.pop("INFERNO_DATABASE_URL", None)
    by_name.pop("INFERNO_LIMITS_STORAGE", None)
    settings = settings_of({**environment(), **by_name})
    assert settings.models.preload
    assert [container["args"][-1] for container in pod_of(objects)["initContainers"]] == settings.models.preload
    mounted = {mount["mountPath"] for mount in server_of(objects)["volumeMounts"]}
    assert mounted == {str(settings.data_dir), str(settings.models.dir), "/tmp"}


def test_variables_of_a_service_do_not_become_settings(objects: dict[str, Any]) -> None:
    name = objects["Service"]["metadata"]["name"].upper()
    with pytest.raises(errors.InvalidRequest):
        settings_of({f"{name}_PORT": "tcp://10.0.0.1:8080"})
    assert pod_of(objects)["enableServiceLinks"] is False


def test_probes_ask_public_routes(objects: dict[str, Any]) -> None:
    public = {spec.path for spec in route_table() if (spec.method, spec.permission) == ("GET", "public")}
    probes = {name: server_of(objects)[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["path"] for probe in probes.values()} <= public
    assert probes["readiness"]["path"] == "/readyz"
    assert probes["liveness"]["path"] == "/livez"  # a model that does not answer is no reason to end the server
    ports = {port["name"]: port["containerPort"] for port in server_of(objects)["ports"]}
    assert {ports[probe["port"]] for probe in probes.values()} == {settings_of(environment()).server.port}


def test_there_is_time_to_stop(objects: dict[str, Any]) -> None:
    _, waited = server_of(objects)["lifecycle"]["preStop"]["exec"]["command"]
    needed = int(waited) + longest_stop_s(settings_of(environment()))
    assert pod_of(objects)["terminationGracePeriodSeconds"] >= needed


def test_it_runs_as_the_user_of_the_image(objects: dict[str, Any]) -> None:
    (user,) = [rest for word, rest in dockerfile() if word == "USER"]
    context = pod_of(objects)["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
    assert context["runAsNonRoot"]
    for container in (*pod_of(objects)["initContainers"], *pod_of(objects)["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_selectors_select_the_pods(objects: dict[str, Any]) -> None:
    labels = objects["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    selectors = [objects["StatefulSet"]["spec"]["selector"]["matchLabels"], objects["Service"]["spec"]["selector"]]
    if budget := objects.get("PodDisruptionBudget"):
        selectors.append(budget["spec"]["selector"]["matchLabels"])
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_one_server_has_its_own_database_and_several_share_one() -> None:
    assert rendered("base")["StatefulSet"]["spec"]["replicas"] == 1
    scaled = rendered("scaled")
    assert "replicas" not in scaled["StatefulSet"]["spec"]  # the autoscaler's
    required = {v["name"]: v["valueFrom"].get("secretKeyRef", {}) for v in server_of(scaled)["env"]}
    for name in ("INFERNO_DATABASE_URL", "INFERNO_LIMITS_STORAGE"):
        assert required[name] == {"name": "inferno", "key": name}  # not optional: no pod starts without
        settings_of({name: "scheme://user:password@host/0"})  # it is a setting's


def test_the_autoscaler_asks_for_the_adapter_metric() -> None:
    spec = rendered("scaled")["HorizontalPodAutoscaler"]["spec"]
    workload = rendered("scaled")["StatefulSet"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "name": workload["metadata"]["name"],
    }
    (metric,) = spec["metrics"]
    (rule,) = parsed("kubernetes/monitoring/adapter-rules.yaml")["rules"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def test_the_monitor_asks_the_service() -> None:
    monitor = rendered("monitoring")["ServiceMonitor"]["spec"]
    service = rendered("base")["Service"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["path"] in {spec.path for spec in route_table()}
