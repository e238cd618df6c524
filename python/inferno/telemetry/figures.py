"""Prometheus metrics that nobody counts: they are asked for when somebody wants to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from inferno.request import EngineStats

#: EngineStats field -> (metric, help). Fields that end in _total are counters.
_ENGINE_METRICS = {
    "running": ("inferno_engine_running_sequences", "Sequences being generated"),
    "waiting": ("inferno_engine_waiting_sequences", "Sequences waiting for a slot"),
    "parallel": ("inferno_engine_slots", "Sequences that can be generated at once"),
    "kv_tokens_used": ("inferno_engine_kv_tokens_used", "Tokens held in the KV cache"),
    "kv_tokens_total": ("inferno_engine_kv_tokens_capacity", "Tokens the KV cache can hold"),
    "stored_bytes": ("inferno_engine_stored_bytes", "Memory of prefixes that have lost their place in the KV cache"),
    "memory_bytes": (
        "inferno_engine_memory_bytes",
        "Memory of weights, KV cache and compute buffers, and of stored prefixes at most",
    ),
    "steps_total": ("inferno_engine_steps", "Batches computed"),
    "busy_s_total": ("inferno_engine_busy_seconds", "Time spent computing them"),
    "rows_total": ("inferno_engine_rows", "Tokens computed; divided by steps, the mean batch size"),
    "prompt_tokens_total": ("inferno_engine_prompt_tokens", "Prompt tokens, cached ones included"),
    "cached_tokens_total": ("inferno_engine_cached_tokens", "Prompt tokens that were not computed again"),
    "fetched_tokens_total": ("inferno_engine_fetched_tokens", "Of those, how many were stored outside the KV cache"),
    "completion_tokens_total": ("inferno_engine_completion_tokens", "Tokens sampled"),
    "drafted_tokens_total": ("inferno_engine_drafted_tokens", "Guessed tokens, computed before they were sampled"),
    "accepted_tokens_total": ("inferno_engine_accepted_tokens", "Of those, how many were sampled then"),
    "preemptions_total": ("inferno_engine_preemptions", "Sequences that had to give up their slot"),
}
_GAUGES = frozenset(name for name in _ENGINE_METRICS if not name.endswith("_total")) | {"kv_tokens_total"}

#: ModelFigures field -> (metric, help).
_MODEL_METRICS = {
    "progress": ("inferno_model_load_progress", "How much of a model has been loaded, 0 to 1"),
    "context_size": ("inferno_model_context_size", "Tokens that one sequence of a loaded model may hold"),
    "active": ("inferno_model_active_requests", "Requests that use a model"),
}


class ModelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model that is loaded or being loaded. `restarts` counts its worker's."""

    state: str
    progress: float
    context_size: int
    active: int
    restarts: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is true at a moment. `started` is in UTC seconds since 1970. `stats` are those of engines that answered;
    `devices` has each GPU's memory in bytes; `batches` and `batch_items` say how many there are in each state, None
    when the database did not answer."""

    version: str
    started: float
    draining: bool
    models: Mapping[str, ModelFigures]
    stats: Mapping[str, EngineStats]
    devices: Mapping[str, int]
    batches: Mapping[str, int] | None
    batch_items: Mapping[str, int] | None


def families(figures: Figures) -> list[Metric]:
    """As Prometheus's client library has them."""
    return [
        *_of_server(figures),
        *_of_engines(figures.stats),
        *_of_devices(figures),
        *_of_models(figures.models),
        *_of_batches(figures),
    ]


def _of_server(figures: Figures) -> Iterator[Metric]:
    build = GaugeMetricFamily("inferno_build_info", "Always 1; the label has the version", labels=["version"])
    build.add_metric([figures.version], 1.0)
    yield build
    yield GaugeMetricFamily("inferno_start_time_seconds", "When the server began, in Unix time", value=figures.started)
    yield GaugeMetricFamily("inferno_draining", "1 once the server takes nothing new", value=float(figures.draining))


def _of_engines(stats: Mapping[str, EngineStats]) -> Iterator[Metric]:
    for field, (name, help_text) in _ENGINE_METRICS.items():
        family = (GaugeMetricFamily if field in _GAUGES else CounterMetricFamily)(name, help_text, labels=["model"])
        for model, values in stats.items():
            family.add_metric([model], float(getattr(values, field)))
        yield family


def _of_devices(figures: Figures) -> Iterator[Metric]:
    total = GaugeMetricFamily("inferno_device_memory_bytes", "Memory of a GPU; 0 is not known", labels=["device"])
    for device, size in figures.devices.items():
        total.add_metric([device], float(size))
    layers = GaugeMetricFamily("inferno_engine_gpu_layers", "Layers of a model that are on GPUs", labels=["model"])
    held = GaugeMetricFamily(
        "inferno_engine_device_memory_bytes", "Of a model's memory, what is on a GPU", labels=["model", "device"]
    )
    for model, stats in figures.stats.items():
        layers.add_metric([model], float(stats.placement.gpu_layers))
        for device, size in stats.placement.device_bytes.items():
            held.add_metric([model, device], float(size))
    yield from (total, layers, held)


def _of_models(models: Mapping[str, ModelFigures]) -> Iterator[Metric]:
    up = GaugeMetricFamily("inferno_model_loaded", "1 for a model that is in memory", labels=["model"])
    state = GaugeMetricFamily("inferno_model_state", "1 for the state a model is in", labels=["model", "state"])
    started = CounterMetricFamily("inferno_worker_restarts", "Times a worker was started again", labels=["model"])
    for model, figures in models.items():
        state.add_metric([model, figures.state], 1.0)
        started.add_metric([model], float(figures.restarts))
        if figures.state == "ready":
            up.add_metric([model], 1.0)
    yield from (up, state, started)
    for field, (name, help_text) in _MODEL_METRICS.items():
        family = GaugeMetricFamily(name, help_text, labels=["model"])
        for model, figures in models.items():
            family.add_metric([model], float(getattr(figures, field)))
        yield family


def _of_batches(figures: Figures) -> Iterator[Metric]:
    for name, help_text, counts in (
        ("inferno_batches", "Batches in the database", figures.batches),
        ("inferno_batch_items", "Requests of these batches", figures.batch_items),
    ):
        family = GaugeMetricFamily(name, help_text, labels=["state"])
        for state, count in (counts or {}).items():
            family.add_metric([state], float(count))
        yield family
