"""Rules, dashboard and adapter: each expression parses as PromQL, and asks for metrics and labels that a server has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import promql_parser
import pytest
from inferno import errors
from inferno.server.errors import STATUS
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.files import DEPLOY, PAGE, parsed
from tests.fakes import FakeEngine
from tests.server.conftest import AUTH, PROMPT, AppTransport, make_services

RULES = [rule for group in parsed("prometheus/inferno.rules.yml")["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana" / "inferno.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
#: What Prometheus adds to each series it scrapes, and in Kubernetes its operator.
ADDED = {"job", "instance", "namespace", "pod"}


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    """Name -> labels of each series of a server that has answered and refused; and of what the rules record."""
    engine = FakeEngine()
    with httpx.Client(
        transport=AppTransport(make_services(engine)), base_url="http://localhost", headers=AUTH
    ) as client:
        client.post("/inference", json=PROMPT)
        engine.refusal = errors.ContextLengthExceeded("long")
        client.post("/inference", json=PROMPT)
        text = client.get("/metrics").text
    found: dict[str, set[str]] = {"up": set(ADDED)}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set(ADDED)).update(sample.labels)
    return found | {rule["record"]: _labels(rule["expr"], found) for rule in RULES if "record" in rule}


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    for rule in parsed("kubernetes/monitoring/adapter-rules.yaml")["rules"]:
        yield rule["seriesQuery"]
        series, matchers = rule["seriesQuery"].rstrip("}").split("{")
        query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.LabelMatchers>>", matchers)
        yield query.replace("<<.GroupBy>>", "namespace,pod")
    for variable in VARIABLES.values():
        if match := re.fullmatch(r"label_values\((.+), (\w+)\)", variable.get("definition", "")):
            yield f"count by ({match[2]}) ({match[1]})"


def nodes(expression: str) -> list[Any]:
    found: list[Any] = []
    parsed = promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    promql_parser.walk(parsed, lambda node: found.append(node))
    return found


def selectors(expression: str) -> list[Any]:
    return [
        getattr(node, "vector_selector", node)
        for node in nodes(expression)
        if isinstance(node, promql_parser.VectorSelector | promql_parser.MatrixSelector)
    ]


def grouped(expression: str) -> set[str]:
    """The labels that aggregations keep."""
    modifiers = [node.modifier for node in nodes(expression) if isinstance(node, promql_parser.AggregateExpr)]
    return {label for modifier in modifiers if modifier is not None for label in modifier.labels}


def _labels(expression: str, metrics: dict[str, set[str]]) -> set[str]:
    """Those of what an expression of ours evaluates to."""
    return grouped(expression) or set.union(*(metrics[selector.name] for selector in selectors(expression)))


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_it_asks_for_what_there_is(expression: str, metrics: dict[str, set[str]]) -> None:
    asked = selectors(expression)
    assert asked
    for selector in asked:
        labels = metrics[selector.name]
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels
    assert grouped(expression) <= set.union(*(metrics[selector.name] for selector in asked))


def test_what_does_not_parse_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        nodes("sum(rate(inferno_tokens_total[5m])")


def test_counters_are_rates_and_gauges_are_not(metrics: dict[str, set[str]]) -> None:
    for expression in expressions():
        ranged = {node.vector_selector.name for node in nodes(expression) if hasattr(node, "vector_selector")}
        assert all(name.endswith(("_total", "_bucket")) for name in ranged)
        names = {selector.name for selector in selectors(expression)} - ranged
        if not expression.startswith("count by"):
            assert not any(name.endswith(("_total", "_bucket")) for name in names)


def test_codes_of_failures_are_errors() -> None:
    matched = [
        code
        for expression in expressions()
        for selector in selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name == "code"
        for code in matcher.value.split("|")
    ]
    assert matched
    assert set(matched) <= errors.BY_CODE.keys()
    assert all(STATUS[code] >= 500 for code in matched)


def test_alerts_say_what_they_know(metrics: dict[str, set[str]]) -> None:
    alerts = [rule for rule in RULES if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) > 0
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning")
        told = rule["annotations"]["summary"] + rule["annotations"]["description"]
        assert set(re.findall(r"\$labels\.(\w+)", told)) <= _labels(rule["expr"], metrics)


def test_routes_and_metrics_in_descriptions_are_there(metrics: dict[str, set[str]]) -> None:
    told = json.dumps([RULES, DASHBOARD])
    assert set(re.findall(r"\binferno_\w+", told)) <= metrics.keys() | {"inferno_requests", "inferno_faults"} | {
        name for rule in RULES for name in re.findall(r"\w+", rule.get("record", ""))
    }


def test_a_batch_alone_is_no_long_queue() -> None:
    """The runner keeps more waiting than there are slots, as long as there is something to do."""
    (rule,) = [rule for rule in RULES if rule.get("alert") == "InfernoQueueIsLong"]
    (exception,) = [node for node in nodes(rule["expr"]) if str(getattr(node, "op", "")) == "unless"]
    (selector,) = selectors(str(exception.rhs))
    assert selector.name == "inferno_batch_items"
    assert [(matcher.name, matcher.value) for matcher in selector.matchers.matchers] == [("state", "running")]


# ---- the dashboard ----


def test_legends_show_labels_that_are_there() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= grouped(target["expr"])


def test_variables_are_those_it_has() -> None:
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == VARIABLES.keys()


def test_panels_do_not_lie_on_each_other() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_page_has_each_alert() -> None:
    rows = re.findall(r"^\| `(Inferno\w+)` \|", PAGE, re.MULTILINE)
    assert rows == [rule["alert"] for rule in RULES if "alert" in rule]
