"""What the handlers work with. Built once, passed along, never global."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from dataclasses import dataclass, field

from inferno import __version__, errors
from inferno.batch.census import Census
from inferno.batch.runner import BatchRunner
from inferno.config import Settings
from inferno.engine.devices import KnownDevices
from inferno.identity.authentication import Authenticator
from inferno.identity.limits import Limiter
from inferno.identity.logins import Logins
from inferno.models.pool import ModelPool
from inferno.models.registry import Registry
from inferno.request import EmbeddingRequest, Request
from inferno.server.announcements import Announcements, batch_ended
from inferno.server.dialects.batch import render_result
from inferno.store.database import Database
from inferno.telemetry.custom_metrics import CustomMetrics
from inferno.telemetry.metrics import Metrics
from inferno.telemetry.observation import Observation
from inferno.telemetry.origin import Origin
from inferno.telemetry.traces import Traces
from inferno.webhooks.deliverer import Deliverer
from inferno.webhooks.endpoints import EVENTS, configure_webhooks
from inferno.webhooks.outbound import Policy
from inferno.webhooks.outbox import OPERATOR, STATES
from inferno.webhooks.signing import check_secret


@dataclass
class Services:
    settings: Settings
    registry: Registry
    pool: ModelPool
    database: Database
    authenticator: Authenticator
    logins: Logins
    limiter: Limiter
    webhooks: Deliverer
    announcements: Announcements
    batches: BatchRunner
    census: Census
    metrics: Metrics
    traces: Traces
    custom_metrics: CustomMetrics
    devices: KnownDevices = field(default_factory=KnownDevices)
    version: str = __version__
    started: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    #: Set once the server is about to stop: who keeps a connection open for later takes leave.
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    def observe(self, request: Request | EmbeddingRequest, origin: Origin) -> Observation:
        """The context to run `request` in, for metrics and traces."""
        return Observation(self.metrics, self.traces, request, origin)

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`: changes when the program does."""
        return "fp_" + hashlib.sha256(self.version.encode()).hexdigest()[:10]


def build_services(settings: Settings, registry: Registry, pool: ModelPool, database: Database) -> Services:
    """All rooms, wired. Raises InvalidRequest for webhooks of the configuration, or a secret, that are none."""
    metrics = Metrics()
    metrics.know(registry.ids())
    traces = Traces(settings.traces)
    metrics.add(traces)
    authenticator = Authenticator(database, enabled=settings.auth.enabled, fixed_key=settings.auth.api_key)
    metrics.know_webhooks(EVENTS, STATES)
    webhooks = Deliverer(database, _policy(settings), count=metrics.count_webhook)
    announcements = Announcements(database, webhooks)
    pool.on_loaded = announcements.model_loaded
    batches = BatchRunner(
        database,
        pool,
        observe=lambda request, user_id: Observation(
            metrics, traces, request, Origin(user_id=user_id, request_id=request.id, awaited=False)
        ),
        render=render_result,
        salt_of=authenticator.salt_of,
        on_ended=batch_ended(_webhook_secret(settings)),
        announced=webhooks.wake,
        retention_s=settings.batch.retention_days * 86400,
    )
    database.write_now(lambda connection: configure_webhooks(connection, OPERATOR, settings.webhooks))
    return Services(
        settings=settings,
        registry=registry,
        pool=pool,
        database=database,
        authenticator=authenticator,
        logins=Logins(database, settings.auth),
        limiter=Limiter(settings.limits),
        webhooks=webhooks,
        announcements=announcements,
        batches=batches,
        census=Census(database),
        metrics=metrics,
        traces=traces,
        custom_metrics=CustomMetrics(settings.metrics.custom_series),
    )


def _webhook_secret(settings: Settings) -> str:
    """The secret for who has none. Raises InvalidRequest."""
    secret = settings.webhook.secret
    if secret:
        try:
            check_secret(secret)
        except errors.InvalidRequest as error:
            raise errors.InvalidRequest(f"webhook.{error.message}", field="webhook.secret") from None
    return secret


def _policy(settings: Settings) -> Policy:
    allowed = tuple(ipaddress.ip_network(network) for network in settings.webhook.allow)
    return Policy(allow=allowed, own_port=settings.server.port or None)
