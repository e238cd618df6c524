"""T3: POST /metrics/custom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from inferno.telemetry.custom_metrics import BUCKETS
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes import FakeEngine
from tests.server.conftest import make_services

SAMPLE = {"name": "custom_metric", "value": 42.5, "type": "gauge", "labels": {"environment": "production"}}


def record(client: httpx.Client, **changes: Any) -> httpx.Response:
    return client.post("/metrics/custom", json={**SAMPLE, **changes})


def lines(client: httpx.Client) -> list[str]:
    return client.get("/metrics").text.splitlines()


def refused(response: httpx.Response) -> str:
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_REQUEST"
    return str(response.json()["error"]["details"]["field"])


@pytest.mark.acceptance("T3")
def test_the_documented_exchange(client: httpx.Client) -> None:
    response = client.post("/metrics/custom", json=SAMPLE)
    assert response.status_code == 200
    assert response.json() == {"status": "recorded", **SAMPLE}
    assert 'custom_metric{environment="production"} 42.5' in lines(client)
    assert "# TYPE custom_metric gauge" in lines(client)
    assert "# HELP custom_metric Custom metric" in lines(client)


@pytest.mark.acceptance("T3")
def test_a_gauge_is_set(client: httpx.Client) -> None:
    record(client)
    record(client, value=-1)
    assert 'custom_metric{environment="production"} -1.0' in lines(client)


@pytest.mark.acceptance("T3")
@pytest.mark.parametrize("name", ["jobs", "jobs_total"])
def test_a_counter_is_added_to_under_its_own_name(client: httpx.Client, name: str) -> None:
    for value in (1, 0, 2.5):
        record(client, name=name, type="counter", value=value, labels={})
    assert f"{name} 3.5" in lines(client)
    assert f"# TYPE {name} counter" in lines(client)
    (family,) = [found for found in families(client) if found.name == "jobs"]
    assert [(sample.name, sample.value) for sample in family.samples] == [("jobs_total", 3.5)]


@pytest.mark.acceptance("T3")
def test_a_histogram(client: httpx.Client) -> None:
    for value in (0.05, 0.005, 2, 1000, -1):
        record(client, name="h", type="histogram", value=value, labels={"a": "b"})
    (family,) = [found for found in families(client) if found.name == "h"]
    values = {(sample.name, sample.labels.get("le")): sample.value for sample in family.samples}
    assert values[("h_bucket", "0.005")] == 2  # a bound belongs to its bucket
    assert values[("h_bucket", "0.05")] == 3
    assert values[("h_bucket", "10.0")] == 4
    assert values[("h_bucket", "+Inf")] == values[("h_count", None)] == 5
    assert values[("h_sum", None)] == pytest.approx(1001.055)
    assert len(values) == len(BUCKETS) + 2
    assert all(sample.labels["a"] == "b" for sample in family.samples)


def families(client: httpx.Client) -> list[Any]:
    """Read by Prometheus's own client, all of them, each once."""
    found = list(text_string_to_metric_families(client.get("/metrics").text))
    assert len({family.name for family in found}) == len(found)
    return found


def test_label_values_are_escaped(client: httpx.Client) -> None:
    value = 'a\\b"c{},= \u00e9\\n'
    assert record(client, labels={"text": value}).status_code == 200
    (family,) = [found for found in families(client) if found.name == "custom_metric"]
    assert family.samples[0].labels == {"text": value}


def test_labels_may_be_absent_null_or_in_any_order(client: httpx.Client) -> None:
    for labels in (None, {}):
        record(client, name="plain", labels=labels)
    assert client.post("/metrics/custom", json={"name": "plain", "type": "gauge", "value": 7}).status_code == 200
    assert "plain 7.0" in lines(client)
    record(client, labels={"a": "1", "b": "2"})
    record(client, value=9, labels={"b": "2", "a": "1"})
    assert [line for line in lines(client) if line.startswith("custom_metric{")] == ['custom_metric{a="1",b="2"} 9.0']


BAD_NAMES = ["", "1a", "a b", "a-b", "a{b}", "a\n", "a\nup 1", "\u00e9", "a" * 129, None, 5, []]
TAKEN_NAMES = ["__a", "up", "scrape_x", "python_info", "process_cpu_seconds_total", "inferno_x"]


@pytest.mark.acceptance("T3")
@pytest.mark.parametrize("name", [*BAD_NAMES, *TAKEN_NAMES])
def test_bad_and_taken_names(client: httpx.Client, name: Any) -> None:
    before = lines(client)
    assert refused(record(client, name=name)) == "name"
    assert len(lines(client)) == len(before)


def test_every_family_of_the_server_has_a_reserved_name(client: httpx.Client) -> None:
    for family in families(client):
        assert refused(record(client, name=family.name)) == "name"


@pytest.mark.acceptance("T3")
@pytest.mark.parametrize("kind", ["summary", "Gauge", "", None, 5])
def test_bad_types(client: httpx.Client, kind: Any) -> None:
    assert refused(record(client, type=kind)) == "type"


@pytest.mark.acceptance("T3")
@pytest.mark.parametrize("value", ["1", "NaN", True, None, [], 10**400, -(10**309)])
def test_bad_values(client: httpx.Client, value: Any) -> None:
    assert refused(record(client, value=value)) == "value"


@pytest.mark.acceptance("T3")
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_has_not(client: httpx.Client, value: str) -> None:
    response = client.post("/metrics/custom", content=f'{{"name": "a", "type": "gauge", "value": {value}}}')
    assert response.status_code == 400


@pytest.mark.parametrize("kind", ["counter", "histogram"])
def test_a_sum_stays_a_number(client: httpx.Client, kind: str) -> None:
    assert record(client, type=kind, value=1.7e308).status_code == 200
    assert refused(record(client, type=kind, value=1.7e308)) == "value"
    assert "Inf\n" not in client.get("/metrics").text.replace('"+Inf"', "")


@pytest.mark.acceptance("T3")
def test_counters_do_not_go_down(client: httpx.Client) -> None:
    assert refused(record(client, type="counter", value=-0.5)) == "value"
    assert not [line for line in lines(client) if "custom_metric" in line]


@pytest.mark.acceptance("T3")
@pytest.mark.parametrize(
    ("labels", "field"),
    [
        ("a=b", "labels"),
        (["a"], "labels"),
        ({"": "x"}, "labels"),
        ({"1a": "x"}, "labels"),
        ({"a b": "x"}, "labels"),
        ({"a\n": "x"}, "labels"),
        ({"a:b": "x"}, "labels"),
        ({"__name__": "x"}, "labels"),
        ({"le": "1"}, "labels"),
        ({"quantile": "1"}, "labels"),
        ({"a" * 129: "x"}, "labels"),
        ({f"l{i}": "x" for i in range(11)}, "labels"),
        ({"a": 5}, "labels.a"),
        ({"a": None}, "labels.a"),
        ({"a": "x" * 129}, "labels.a"),
        ({"a": "x\ny"}, "labels.a"),
        ({"a": "x\u2028y"}, "labels.a"),
        ({"a": "\x00"}, "labels.a"),
    ],
)
def test_bad_labels(client: httpx.Client, labels: Any, field: str) -> None:
    assert refused(record(client, labels=labels)) == field


@pytest.mark.acceptance("T3")
def test_clashes_with_an_earlier_metric(client: httpx.Client) -> None:
    record(client)
    assert refused(record(client, type="counter")) == "type"
    assert refused(record(client, labels={})) == "labels"
    assert refused(record(client, labels={"other": "x"})) == "labels"
    assert refused(record(client, labels={"environment": "x", "other": "x"})) == "labels"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("h", "histogram"), ("h_count", "gauge")),
        (("h_bucket", "counter"), ("h", "histogram")),
        (("c", "counter"), ("c_total", "counter")),
        (("c_total", "gauge"), ("c", "counter")),
        (("c_total", "counter"), ("c", "gauge")),
    ],
)
def test_clashes_of_what_names_become(client: httpx.Client, first: tuple[str, str], second: tuple[str, str]) -> None:
    assert record(client, name=first[0], type=first[1]).status_code == 200
    assert refused(record(client, name=second[0], type=second[1])) == "name"
    families(client)


@pytest.mark.acceptance("T3")
def test_series_are_bounded(connect: Callable[..., httpx.Client], engine: FakeEngine) -> None:
    """A histogram counts once for each bucket and twice more."""
    client = connect(make_services(engine, metrics__custom_series=len(BUCKETS) + 4))
    assert record(client, labels={"environment": "a"}).status_code == 200
    assert record(client, name="h", type="histogram").status_code == 200
    assert record(client, labels={"environment": "b"}).status_code == 200
    assert refused(record(client, labels={"environment": "c"})) == "labels"
    assert refused(record(client, name="another")) == "name"
    assert record(client, labels={"environment": "a"}, value=3).status_code == 200  # known ones go on
    assert record(client, name="h", type="histogram").status_code == 200
    assert len([line for line in lines(client) if not line.startswith(("#", "inferno_"))]) == len(BUCKETS) + 4
