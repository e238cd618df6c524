"""What every engine offers."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from inferno.engine.generation import Generation
from inferno.request import EmbeddingRequest, Embeddings, EngineStats, ModelInfo, Placement, Request

#: `failed`: the engine is gone and does not come back by itself.
EngineState: TypeAlias = Literal["loading", "ready", "restarting", "failed", "closed"]


class Engine(Protocol):
    """One loaded model. Methods raise `inferno.errors.InfernoError` and nothing else on purpose."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def context_size(self) -> int:
        """Tokens one sequence may hold, after capping by what the model was trained for."""
        ...

    @property
    def memory_bytes(self) -> int:
        """What the model takes: weights, KV cache and compute buffers."""
        ...

    @property
    def placement(self) -> Placement: ...

    @property
    def state(self) -> EngineState: ...

    @property
    def healthy(self) -> bool:
        """True when a request would be served now: the state is `ready` and the engine answers."""
        ...

    async def submit(self, request: Request) -> Generation:
        """Tokenise, check the context and take queue places, all or nothing.

        Once this returns, the request is accepted and each of its sequences ends in exactly one Finish.
        Raises InvalidRequest, ContextLengthExceeded, ServiceUnavailable (queue full, closing, restarting).
        """
        ...

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Vectors for all inputs. Raises like `submit`, and InferenceFailed or RequestTimeout later on."""
        ...

    async def stats(self) -> EngineStats: ...

    async def close(self, grace_s: float = 0.0) -> None:
        """Refuse new work, let accepted work run for up to `grace_s` seconds, cancel the rest, free the model."""
        ...
