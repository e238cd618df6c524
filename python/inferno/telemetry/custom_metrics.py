"""Metrics that clients bring: checked when they arrive, held in memory, shown under exactly the names they came with.

Names follow https://prometheus.io/docs/concepts/data_model/. prometheus_client renames counters to end in _total, so
the few lines of text are written here. For the event loop's thread only.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

from prometheus_client import Histogram

from inferno import errors
from inferno.telemetry.families import Family, Sample

MAX_LABELS = 10
MAX_LABEL_LENGTH = 128
HELP = "Custom metric"
#: Upper bounds of every custom histogram, in the unit of its values.
BUCKETS: tuple[float, ...] = Histogram.DEFAULT_BUCKETS

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,127}")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,127}")
#: Names of this server, of Prometheus's client libraries, and of what Prometheus itself says of a target.
_TAKEN = ("inferno_", "python_", "process_", "scrape_", "__")
_TAKEN_NAMES = frozenset({"up"})
#: Labels that are part of the format.
_TAKEN_LABELS = frozenset({"le", "quantile"})


class CustomMetrics:
    """`limit` bounds the time series, which is how Prometheus counts: a histogram is one for each bucket and two."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._n_series = 0
        self._metrics: dict[str, _Metric] = {}
        self._owners: dict[str, str] = {}  # each name that the exposition uses -> the metric that brought it

    def record(self, name: str, kind: str, value: float, labels: Mapping[str, object]) -> None:
        """Set a gauge, add to a counter, or observe a value in a histogram; the first value makes the metric.

        Raises InvalidRequest naming `name`, `type`, `value` or `labels`; nothing has changed then.
        """
        _check_name(name)
        if kind not in KINDS:
            _refuse("type", f"type must be one of {', '.join(KINDS)}.")
        if not math.isfinite(value):
            _refuse("value", "value must be a finite number.")
        texts = _checked_labels(labels)
        metric = self._metrics.get(name) or self._new(name, kind, texts)
        metric.check(kind, texts)
        key = tuple(texts[label] for label in metric.labels)
        series = metric.series.get(key)
        is_new = series is None
        if series is None:
            self._check_room(metric)
            series = KINDS[kind]()
        series.take(value)
        if is_new:
            self._keep(metric, key, series)

    def _new(self, name: str, kind: str, labels: Mapping[str, str]) -> _Metric:
        metric = _Metric(name, kind, tuple(labels))
        for used in metric.names:
            if used in self._owners:
                _refuse("name", f"name clashes with the metric {self._owners[used]}.")
        return metric

    def _check_room(self, metric: _Metric) -> None:
        if self._n_series + metric.cost > self._limit:
            field = "labels" if metric.series else "name"
            _refuse(field, f"{field} would make more than {self._limit} time series of custom metrics.")

    def _keep(self, metric: _Metric, key: tuple[str, ...], series: _Series) -> None:
        self._n_series += metric.cost
        metric.series[key] = series
        self._metrics[metric.name] = metric
        self._owners.update(dict.fromkeys(metric.names, metric.name))

    def families(self) -> list[Family]:
        return [metric.family() for metric in self._metrics.values()]

    def exposition(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        return "".join(line for family in self.families() for line in _lines(family)).encode()


class _Metric:
    def __init__(self, name: str, kind: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.kind = kind
        self.labels = labels
        self.series: dict[tuple[str, ...], _Series] = {}
        self.cost = len(BUCKETS) + 2 if kind == "histogram" else 1

    @property
    def names(self) -> set[str]:
        """What stands in the exposition, or what a parser makes of it: to them a counter's name has no _total."""
        if self.kind == "histogram":
            return {self.name, *(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))}
        if self.kind == "counter":
            base = self.name.removesuffix("_total")
            return {base, f"{base}_total"}
        return {self.name}

    def check(self, kind: str, labels: Mapping[str, str]) -> None:
        if kind != self.kind:
            _refuse("type", f"type must be {self.kind}: {self.name} is one.")
        if labels.keys() != set(self.labels):
            _refuse("labels", f"labels must be the ones that {self.name} has: {', '.join(self.labels) or 'none'}.")

    def family(self) -> Family:
        samples = [
            Sample(self.name + suffix, dict(zip(self.labels, key, strict=True)) | more, value)
            for key, series in self.series.items()
            for suffix, more, value in series.samples()
        ]
        return Family(self.name, self.kind, HELP, samples)


class _Gauge:
    def __init__(self) -> None:
        self._value = 0.0

    def take(self, value: float) -> None:
        self._value = value

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """(suffix of the name, further labels, value) of each line."""
        yield "", {}, self._value


class _Counter(_Gauge):
    def take(self, value: float) -> None:
        if value < 0:
            _refuse("value", "value must be at least 0: it is added to a counter.")
        self._value = _sum(self._value, value)


class _Histogram:
    def __init__(self) -> None:
        self._counts = [0] * len(BUCKETS)
        self._total = 0.0

    def take(self, value: float) -> None:
        self._total = _sum(self._total, value)
        self._counts[bisect.bisect_left(BUCKETS, value)] += 1

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        below = 0
        for bound, count in zip(BUCKETS, self._counts, strict=True):
            below += count
            yield "_bucket", {"le": "+Inf" if math.isinf(bound) else repr(bound)}, float(below)
        yield "_sum", {}, self._total
        yield "_count", {}, float(below)


_Series = _Gauge | _Histogram
KINDS: dict[str, type[_Series]] = {"gauge": _Gauge, "counter": _Counter, "histogram": _Histogram}


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        _refuse("name", "name must be 1 to 128 letters, digits, _ or :, and not begin with a digit.")
    if name.startswith(_TAKEN) or name in _TAKEN_NAMES:
        _refuse("name", f"name belongs to the server or to Prometheus: {', '.join((*_TAKEN, *_TAKEN_NAMES))}.")


def _checked_labels(labels: Mapping[str, object]) -> dict[str, str]:
    """In the order of their names. Names first: they are part of what an error says."""
    if len(labels) > MAX_LABELS:
        _refuse("labels", f"labels may be {MAX_LABELS} at most.")
    for name in labels:
        if not LABEL.fullmatch(name) or name.startswith("__") or name in _TAKEN_LABELS:
            _refuse("labels", "labels must have names of 1 to 128 letters, digits or _, not le, quantile or __*.")
    return {name: _label_value(name, labels[name]) for name in sorted(labels)}


def _label_value(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_LABEL_LENGTH or not value.isprintable():
        _refuse(f"labels.{name}", f"labels.{name} must be at most {MAX_LABEL_LENGTH} printable characters.")
    return value


def _sum(total: float, value: float) -> float:
    if not math.isfinite(total + value):
        _refuse("value", "value would make the sum too large for a number.")
    return total + value


def _refuse(field: str, message: str) -> NoReturn:
    raise errors.InvalidRequest(message, field=field)


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.type}\n"
    for sample in family.samples:
        pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
        yield f"{sample.name}{f'{{{pairs}}}' if pairs else ''} {sample.value!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"")
