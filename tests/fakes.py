"""An engine, a pool and a registry without models, for tests of what stands before them."""

from __future__ import annotations

import contextlib
import itertools
import queue
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from inferno import errors
from inferno.engine.generation import Generation
from inferno.engine.protocol import EngineState
from inferno.models.pool import Lease, LoadReport, Status
from inferno.models.registry import ModelEntry
from inferno.request import (
    Delta,
    EmbeddingRequest,
    Embeddings,
    EngineStats,
    ErrorInfo,
    Finish,
    FinishReason,
    ModelInfo,
    Placement,
    Request,
    TextPrompt,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)

PIECES = ("The", " capital", " is", " Paris", ".")
PROMPT_TOKENS = 4
#: For what must come: it ends a test that hangs, and says nothing of how fast anything is.
PATIENCE_S = 60.0


def model_info(**changes: Any) -> ModelInfo:
    fields: dict[str, Any] = {
        "architecture": "llama",
        "name": "Fake 1B",
        "description": "",
        "quantization": "Q8_0",
        "n_params": 1000,
        "size_bytes": 1234,
        "context_train": 4096,
        "n_vocab": 1000,
        "n_embd": 8,
        "n_layer": 2,
        "can_generate": True,
        "can_embed": True,
        "pooling": "mean",
        "chat_template": "",
    }
    return ModelInfo(**{**fields, **changes})


class FakeEngine:
    """Says `pieces` to every request at once; with `pieces` None the test speaks, from any thread."""

    context_size = 128
    memory_bytes = 5000
    placement = Placement(gpu_layers=2, host_bytes=4000, device_bytes={"Fake0": 1000})

    def __init__(self, pieces: Sequence[str] | None = PIECES) -> None:
        self.info = model_info()
        self.pieces = pieces
        self.reason: FinishReason = "stop"
        self.refusal: errors.InfernoError | None = None
        self.state: EngineState = "ready"
        self.submitted: queue.Queue[Generation] = queue.Queue()
        self.cancelled: queue.Queue[list[int]] = queue.Queue()
        self._ids = itertools.count(1)

    @property
    def healthy(self) -> bool:
        return self.state == "ready"

    # ---- the engine's protocol ----

    async def submit(self, request: Request) -> Generation:
        if self.refusal is not None:
            raise self.refusal
        ids = [next(self._ids) for _ in range(len(request.prompts) * request.n)]
        prompt_tokens = PROMPT_TOKENS * len(request.prompts)
        generation = Generation(request, ids, prompt_tokens, lambda ids: self._cancel(generation, ids))
        if self.pieces is not None:
            for index in range(len(ids)):
                self._say_all(generation, index)
        self.submitted.put(generation)
        return generation

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        if self.refusal is not None:
            raise self.refusal
        vectors = [vector_of(item.text if isinstance(item, TextPrompt) else str(item)) for item in request.inputs]
        return Embeddings(model=request.model, vectors=vectors, usage=Usage(prompt_tokens=3 * len(vectors)))

    async def stats(self) -> EngineStats:
        return EngineStats(
            running=1,
            kv_tokens_used=7,
            kv_tokens_total=128,
            steps_total=10,
            rows_total=40,
            busy_ms_total=1500.0,
            placement=self.placement,
        )

    async def close(self, grace_s: float = 0.0) -> None:
        self.state = "closed"

    # ---- the test's side ----

    def next(self) -> Generation:
        """The next request's stream, once it has been submitted."""
        return self.submitted.get(timeout=PATIENCE_S)

    def say(self, generation: Generation, text: str, index: int = 0) -> None:
        logprobs = [logprob_of(text)] if generation.request.sampling.get("logprobs", -1) >= 0 else []
        generation.feed(Delta(generation.sequence_ids[index], text, 1, logprobs))

    def finish(self, generation: Generation, reason: FinishReason = "stop", index: int = 0, n: int = 5) -> None:
        error = ErrorInfo("INFERENCE_FAILED", "The engine failed.") if reason == "error" else None
        usage = Usage(PROMPT_TOKENS, n, 1)
        generation.feed(Finish(generation.sequence_ids[index], reason, usage, Timings(1, 20, 80), error=error))

    def _say_all(self, generation: Generation, index: int) -> None:
        assert self.pieces is not None
        for piece in self.pieces:
            self.say(generation, piece, index)
        self.finish(generation, self.reason, index, len(self.pieces))

    def _cancel(self, generation: Generation, ids: list[int]) -> None:
        for sequence_id in ids:
            generation.feed(Finish(sequence_id, "cancelled", Usage(), Timings()))
        self.cancelled.put(ids)


def logprob_of(text: str) -> TokenLogprob:
    return TokenLogprob(7, -0.5, text.encode(), [TopLogprob(7, -0.5, text.encode()), TopLogprob(8, -2.0, b"\xff")])


def vector_of(text: str) -> bytes:
    values = np.random.default_rng(len(text)).normal(size=8)
    return (values / np.linalg.norm(values)).astype("<f4").tobytes()


class FakeRegistry:
    def __init__(self, *ids: str) -> None:
        self._entries = {
            model_id: ModelEntry(
                id=model_id,
                name=model_id.title(),
                path=Path("/secret/place") / f"{model_id}.gguf",
                size_bytes=1234,
                created=1704067200,
                info=model_info(),
            )
            for model_id in ids
        }

    def entries(self) -> list[ModelEntry]:
        return list(self._entries.values())

    def ids(self) -> list[str]:
        return list(self._entries)

    def get(self, model_id: str) -> ModelEntry:
        if model_id not in self._entries:
            raise errors.ModelNotFound(f"Model '{model_id}' not found", available_models=self.ids())
        return self._entries[model_id]


class FakePool:
    """One engine for every model of the registry. `loaded` maps ids to the options they were loaded with."""

    def __init__(self, registry: FakeRegistry, engine: FakeEngine) -> None:
        self.registry = registry
        self.engine = engine
        self.autoload = True
        self.closing = False
        self.loaded: dict[str, Mapping[str, Any]] = {}
        self.options: dict[str, Any] = {}
        self.leases = 0

    async def start(self) -> dict[str, errors.InfernoError]:
        return {}

    async def close(self, grace_s: float) -> None:
        self.begin_closing()
        while not self.engine.submitted.empty():
            self.engine.submitted.get().cancel()

    def begin_closing(self) -> None:
        self.closing = True

    @contextlib.asynccontextmanager
    async def lease(self, model_id: str) -> AsyncIterator[Lease]:
        self._check_open()
        entry = self.registry.get(model_id)
        if model_id not in self.loaded:
            if not self.autoload:
                raise errors.ModelNotLoaded(f"Model '{model_id}' is not loaded")
            self.loaded[model_id] = {}
        self.leases += 1
        try:
            yield Lease(self.engine, entry)
        finally:
            self.leases -= 1

    async def load(self, model_id: str, options: Mapping[str, Any] | None = None) -> LoadReport:
        self._check_open()
        self.registry.get(model_id)
        self.loaded[model_id] = options or {}
        return LoadReport(model_id=model_id, memory_bytes=self.engine.memory_bytes, load_time_ms=12)

    async def unload(self, model_id: str) -> None:
        self.registry.get(model_id)
        if model_id not in self.loaded:
            raise errors.ModelNotLoaded(f"Model '{model_id}' is not loaded")
        del self.loaded[model_id]

    def statuses(self) -> dict[str, Status]:
        return {
            model_id: Status(
                state=self.engine.state,
                context_size=self.engine.context_size,
                restarts=2,
                options=self.options,
                placement=self.engine.placement,
            )
            for model_id in self.loaded
        }

    async def stats(self) -> dict[str, EngineStats]:
        return {model_id: await self.engine.stats() for model_id in self.loaded if self.engine.healthy}

    async def ready(self) -> None:
        self._check_open()
        if self.loaded and not self.engine.healthy:
            raise errors.ServiceUnavailable("Not ready.", retry_after=1)

    def _check_open(self) -> None:
        if self.closing:
            raise errors.ServiceUnavailable("The server is shutting down.", retry_after=5)
