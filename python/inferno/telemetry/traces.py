"""Traces: one OpenTelemetry span for each inference, kept in memory and sent to a collector if there is one.

A span is written in one piece when its inference has ended: all its attributes are known then, and an inference
whose trace is not sampled costs next to nothing. The tracer is this server's own; the process-wide one is not touched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from prometheus_client.core import CounterMetricFamily, Metric

from inferno import __version__
from inferno.config import TraceSettings
from inferno.telemetry.origin import Origin
from inferno.telemetry.otlp import Export

#: What W3C Trace Context asks everybody to accept; a longer header is ignored.
_MAX_HEADER = 512
_LIMITS = SpanLimits(
    max_span_attributes=32,
    max_span_attribute_length=256,
    max_attribute_length=256,
    max_events=1,
    max_links=1,
    max_event_attributes=1,
    max_link_attributes=1,
)
_ROOT = Context()
_W3C = TraceContextTextMapPropagator()


class Traces:
    """One server's traces. For the event loop's thread only.

    With `traces.otlp_endpoint` set, spans also go to that collector, from a thread of their own that begins here.
    Raises InvalidRequest when the package for that is not installed.
    """

    def __init__(self, settings: TraceSettings) -> None:
        # Whose it is stands beside a span, not in it: it is nobody else's business.
        self._kept: deque[tuple[str, ReadableSpan]] = deque(maxlen=settings.capacity)
        self._export = Export.to(settings.otlp_endpoint) if settings.otlp_endpoint else None
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=Resource({"service.name": "inferno", "service.version": __version__}),
            shutdown_on_exit=False,
            span_limits=_LIMITS,
        )
        if self._export is not None:
            provider.add_span_processor(self._export)
        self._tracer = provider.get_tracer("inferno", __version__)

    def record(
        self,
        name: str,
        origin: Origin,
        times_ns: tuple[int, int],
        attributes: Mapping[str, AttributeValue],
        error: str | None,
    ) -> None:
        """Write the span of something that has ended. `times_ns` are its begin and end since the epoch; `error` is
        the code of what it ended with. The caller's trace is continued when the headers name one."""
        span = self._tracer.start_span(
            name, context=_parent(origin), kind=SpanKind.SERVER, attributes=attributes, start_time=times_ns[0]
        )
        if isinstance(span, ReadableSpan):  # else it is not sampled
            _end(span, times_ns[1], error)
            self._kept.append((origin.user_id, span))

    def newest(self, limit: int, user_id: str | None = None) -> list[dict[str, Any]]:
        """Up to `limit` spans, newest first, as JSON: those of one caller, or of all."""
        found: list[dict[str, Any]] = []
        for owner, span in reversed(self._kept):
            if len(found) == limit:
                break
            if user_id is None or owner == user_id:
                found.append(_described(span))
        return found

    def collect(self) -> Iterator[Metric]:
        """What became of the spans for the collector (a Prometheus collector's method)."""
        export = self._export
        exported = CounterMetricFamily("inferno_trace_spans_exported", "Spans taken by the OTLP collector")
        exported.add_metric([], export.exported if export else 0)
        yield exported
        dropped = CounterMetricFamily(
            "inferno_trace_spans_dropped", "Spans that the OTLP collector did not get", labels=["reason"]
        )
        dropped.add_metric(["queue_full"], export.dropped if export else 0)
        dropped.add_metric(["failed"], export.failed if export else 0)
        yield dropped

    async def close(self, grace_s: float) -> None:
        """Send what waits, for up to `grace_s` seconds; a collector that hangs holds nobody up for longer."""
        if self._export is not None:
            await self._export.close(grace_s)


def _parent(origin: Origin) -> Context:
    """The caller's trace context (https://www.w3.org/TR/trace-context/), empty unless it is well-formed."""
    if not origin.traceparent or len(origin.traceparent) > _MAX_HEADER:
        return _ROOT
    carrier = {"traceparent": origin.traceparent}
    if 0 < len(origin.tracestate) <= _MAX_HEADER:
        carrier["tracestate"] = origin.tracestate
    return _W3C.extract(carrier, _ROOT)


def _end(span: Span, at_ns: int, error: str | None) -> None:
    if error is None:
        span.set_status(StatusCode.OK)
    else:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end(at_ns)


def _described(span: ReadableSpan) -> dict[str, Any]:
    began, ended = span.start_time or 0, span.end_time or 0
    start = datetime.fromtimestamp(began / 1e9, UTC).isoformat(timespec="milliseconds")
    return {
        "trace_id": format_trace_id(span.context.trace_id),
        "span_id": format_span_id(span.context.span_id),
        "parent_span_id": format_span_id(span.parent.span_id) if span.parent else None,
        "operation_name": span.name,
        "start_time": start.replace("+00:00", "Z"),
        "duration_ms": round((ended - began) / 1e6),
        "status": "ok" if span.status.is_ok else "error",
        "attributes": dict(span.attributes or {}),
    }
