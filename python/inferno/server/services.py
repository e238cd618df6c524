"""What the handlers work with. Built once, passed along, never global."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field

from inferno import __version__
from inferno.config import Settings
from inferno.identity.keys import KeyRing
from inferno.models.pool import ModelPool
from inferno.models.registry import Registry
from inferno.telemetry.metrics import Metrics


@dataclass
class Services:
    settings: Settings
    registry: Registry
    pool: ModelPool
    keys: KeyRing
    metrics: Metrics = field(default_factory=Metrics)
    version: str = __version__
    started: float = field(default_factory=time.monotonic)
    #: Set once the server is about to stop: who keeps a connection open for later takes leave.
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`: changes when the program does."""
        return "fp_" + hashlib.sha256(self.version.encode()).hexdigest()[:10]
