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
from inferno.store.database import Database
from inferno.telemetry.metrics import Metrics


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

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`: changes when the program does."""
        return "fp_" + hashlib.sha256(self.version.encode()).hexdigest()[:10]
