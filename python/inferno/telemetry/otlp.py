"""Spans on their way to an OpenTelemetry collector. The request path only ever appends to a bounded queue.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from inferno import errors

#: Spans that may wait; more are dropped and counted.
MAX_WAITING = 2048
#: Small enough that encoding one does not hold the interpreter for long.
BATCH = 64
_EVERY_MS = 2000
_TIMEOUT_S = 10


class Export(BatchSpanProcessor):
    """The library's processor with a count of what it loses. Its thread does the sending."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._counting = _CountingExporter(exporter)
        self._given = 0
        self.dropped = 0
        super().__init__(
            self._counting,
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=_EVERY_MS,
            max_export_batch_size=BATCH,
            export_timeout_millis=_TIMEOUT_S * 1000,
        )

    @classmethod
    def to(cls, endpoint: str) -> Export:
        """To the collector at `endpoint`, the full URL (usually it ends in /v1/traces). Raises InvalidRequest when
        the exporter is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise errors.InvalidRequest(
                "traces.otlp_endpoint needs the OpenTelemetry exporter: pip install 'inferno-server[otlp]'.",
                field="traces.otlp_endpoint",
            ) from None
        return cls(OTLPSpanExporter(endpoint, timeout=_TIMEOUT_S))

    @property
    def exported(self) -> int:
        """Spans that the collector took."""
        return self._counting.exported

    @property
    def failed(self) -> int:
        """Spans that were sent in vain."""
        return self._counting.failed

    def on_end(self, span: ReadableSpan) -> None:
        """Queue one span, or drop it when MAX_WAITING wait."""
        if self._given - self._counting.taken >= MAX_WAITING:
            self.dropped += 1
        else:
            self._given += 1
            super().on_end(span)

    async def close(self, grace_s: float) -> None:
        """Send what waits. After `grace_s` seconds nothing is tried again, and a collector that hangs is left to
        itself: the threads do not keep the process alive."""
        closing = threading.Thread(target=self.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, grace_s)
        self._counting.shutdown()


class _CountingExporter(SpanExporter):
    """Written by the exporting thread, read by any."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = 0
        self.exported = 0
        self.failed = 0
        self._closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()
