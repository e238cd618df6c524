"""OpenTelemetry collectors for tests: one that works, one that refuses, one that hangs."""

from __future__ import annotations

import http.server
import queue
import socket
import threading
from typing import Any

import pytest
from inferno.telemetry import otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_S = 60.0


class Collector:
    """Answers `status` to every export and keeps what it got."""

    def __init__(self, status: int = 200) -> None:
        self.received: queue.Queue[tuple[str, ExportTraceServiceRequest]] = queue.Queue()
        received = self.received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.put((self.path, ExportTraceServiceRequest.FromString(body)))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def next(self) -> tuple[str, ExportTraceServiceRequest]:
        return self.received.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class HungCollector:
    """Takes a connection and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1/traces"
        self._held: list[socket.socket] = []

    def hold(self) -> None:
        """Wait for a connection; its peer waits from now on."""
        self._held.append(self._listener.accept()[0])

    def close(self) -> None:
        for connection in (*self._held, self._listener):
            connection.close()


def exporters_end(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once an exporter has shut down. With a collector that hangs this takes half a minute, the library's patience:
    its own is made longer."""
    ended, shutdown = threading.Event(), otlp.Export.shutdown

    def watched(export: otlp.Export) -> None:
        shutdown(export)
        ended.set()

    monkeypatch.setattr(otlp, "_TIMEOUT_S", 3600)
    monkeypatch.setattr(otlp.Export, "shutdown", watched)
    return ended
