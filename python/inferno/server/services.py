"""What the handlers work with. Built once, passed along, never global."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

from inferno import __version__
from inferno.config import Settings
from inferno.identity.authentication import Authenticator
from inferno.identity.limits import Limiter
from inferno.identity.logins import Logins
from inferno.models.pool import ModelPool
from inferno.models.registry import Registry
from inferno.request import EmbeddingRequest, Request
from inferno.store.database import Database
from inferno.telemetry.custom_metrics import CustomMetrics
from inferno.telemetry.metrics import Metrics
from inferno.telemetry.observation import Observation
from inferno.telemetry.origin import Origin
from inferno.telemetry.traces import Traces


@dataclass
class Services:
    settings: Settings
    registry: Registry
    pool: ModelPool
    database: Database
    authenticator: Authenticator
    logins: Logins
    limiter: Limiter
    metrics: Metrics = field(default_factory=Metrics)
    version: str = __version__
    started: float = field(default_factory=time.monotonic)
    traces: Traces = field(init=False)
    custom_metrics: CustomMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.traces = Traces(self.settings.traces)
        self.custom_metrics = CustomMetrics(self.settings.metrics.custom_series)
        self.metrics.add(self.traces)

    def observe(self, request: Request | EmbeddingRequest, origin: Origin) -> Observation:
        """The context to run `request` in, for metrics and traces."""
        return Observation(self.metrics, self.traces, request, origin)

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`: changes when the program does."""
        return "fp_" + hashlib.sha256(self.version.encode()).hexdigest()[:10]
