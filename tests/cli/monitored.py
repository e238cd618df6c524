"""Samples of a server that does not run: made by what makes those of one that does."""

from __future__ import annotations

from typing import Any

from inferno.cli.monitor.sample import Sample, parse
from inferno.request import EngineStats, Timings, Usage
from inferno.telemetry import figures
from inferno.telemetry.figures import Figures, ModelFigures
from inferno.telemetry.metrics import Metrics, exposition

STARTED = 1_700_000_000.0
URL = "http://localhost:8080"
BATCHES = {"processing": 1, "completed": 12, "failed": 0, "cancelled": 0}
ITEMS = {"queued": 180, "running": 12, "completed": 4000, "failed": 2, "cancelled": 0}


class Monitored:
    """Counts like a server; what it says of itself is in `figures`, to be changed."""

    def __init__(self, *models: str, started: float = STARTED) -> None:
        self.metrics = Metrics()
        self.metrics.know(models)
        self.figures: dict[str, Any] = {
            "version": "9.8.7",
            "started": started,
            "draining": False,
            "models": {},
            "stats": {},
            "devices": {},
            "batches": BATCHES,
            "batch_items": ITEMS,
        }

    def load(self, model: str, state: str = "ready", **changes: Any) -> None:
        fields = {"progress": 1.0, "context_size": 4096, "active": 3, "restarts": 0, **changes}
        self.figures["models"] |= {model: ModelFigures(state=state, **fields)}

    def says(self, model: str, **changes: Any) -> None:
        """The model's engine."""
        fields = {"running": 4, "parallel": 8, "waiting": 5, "kv_tokens_used": 900, "kv_tokens_total": 32768}
        self.figures["stats"] |= {model: EngineStats(**{**fields, "memory_bytes": 1 << 30, **changes})}

    def silent(self, model: str) -> None:
        """The model's engine does not answer."""
        del self.figures["stats"][model]

    def finish(self, model: str, seconds: float, *, queue_ms: float = 0.0, tokens: int = 11) -> None:
        """A request succeeds, with 10 ms a token."""
        self.metrics.observe_latencies(Timings(queue_ms, 20.0, 10.0 * (tokens - 1)), tokens)
        self.metrics.count_tokens(model, Usage(5, tokens))
        self.metrics.count_inference(model, seconds, None)

    def sample(self, at: float) -> Sample:
        """`at` seconds after `STARTED`."""
        text = exposition(self.metrics.families() + figures.families(Figures(**self.figures))).decode()
        return parse(text, at=at, now=STARTED + at, url=URL)
