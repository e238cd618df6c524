"""Language models in this process.

>>> from inferno import LLM
>>> with LLM("smollm2-135m-instruct", parallel=4) as llm:
...     print(llm.generate("The capital of France is", max_tokens=8, temperature=0).text)
...     for piece in llm.stream("Once upon a time", max_tokens=32):
...         print(piece, end="")
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from inferno import _core, errors
from inferno.config import load_settings
from inferno.engine.generation import Collector, Generation
from inferno.engine.local import LocalEngine
from inferno.models import preflight
from inferno.models.registry import Registry
from inferno.request import (
    ChatPrompt,
    Delta,
    EmbeddingRequest,
    Embeddings,
    Message,
    ModelInfo,
    Prompt,
    Request,
    Result,
    TextPrompt,
    TokenPrompt,
)

PromptLike = str | Sequence[int]
FloatArray = npt.NDArray[np.float32]


class LLM:
    """A model loaded into this process. Safe to use from several threads and event loops at once."""

    def __init__(self, model: str | Path, *, models_dir: str | Path | None = None, **options: Any) -> None:
        """Load `model`: the path of a GGUF file, or the id of one in the models directory.

        `options` are engine options: context_size (tokens a sequence may hold), parallel (sequences at once),
        batch_size, threads, gpu_layers, queue_size, step_budget_ms, prefix_cache;
        `inferno._core.engine_fields()` lists them with ranges and defaults. Raises ModelNotFound, InvalidRequest
        (bad file or option), ServiceUnavailable (not enough memory).
        """
        checked = _core.validate_engine_options(options)
        self.id, path = _locate(model, models_dir)
        preflight.check(path)
        self._engine = LocalEngine(str(path), checked)

    # ---- text ---------------------------------------------------------------------------------------------------

    @overload
    def generate(self, prompt: str, *, n: int = 1, timeout_s: float | None = None, **sampling: Any) -> Result: ...

    @overload
    def generate(
        self, prompt: Sequence[PromptLike], *, n: int = 1, timeout_s: float | None = None, **sampling: Any
    ) -> list[Result]: ...

    def generate(
        self,
        prompt: str | Sequence[PromptLike],
        *,
        n: int = 1,
        timeout_s: float | None = None,
        **sampling: Any,
    ) -> Result | list[Result]:
        """Continue `prompt`; a list of prompts (texts or token id lists) is computed as one batch.

        `sampling` are the fields of `inferno._core.sampling_fields()`: max_tokens, temperature, top_p, seed, stop,
        logprobs, grammar and so on. Raises InvalidRequest naming a bad field, ContextLengthExceeded,
        ServiceUnavailable (queue full), RequestTimeout after `timeout_s` seconds, InferenceFailed.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        checked = _core.validate_sampling(sampling)
        results = self._run_all([self._request(_prompt(p), n, timeout_s, checked) for p in prompts])
        return results[0] if isinstance(prompt, str) else results

    def stream(self, prompt: str, *, timeout_s: float | None = None, **sampling: Any) -> TextStream:
        """Continue `prompt`, yielding text as it comes. Raises like `generate`."""
        return self._stream(TextPrompt(prompt), timeout_s, sampling)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        n: int = 1,
        timeout_s: float | None = None,
        **sampling: Any,
    ) -> Result:
        """Answer `messages` (mappings with `role` and `content`) by the model's own chat template."""
        checked = _core.validate_sampling(sampling)
        return self._run_all([self._request(_chat(messages), n, timeout_s, checked)])[0]

    def chat_stream(
        self, messages: Sequence[Mapping[str, str]], *, timeout_s: float | None = None, **sampling: Any
    ) -> TextStream:
        """Like `chat`, yielding text as it comes."""
        return self._stream(_chat(messages), timeout_s, sampling)

    async def agenerate(self, prompt: str, *, n: int = 1, timeout_s: float | None = None, **sampling: Any) -> Result:
        """`generate` for event loops; run several at once with `asyncio.gather` and they share the engine."""
        checked = _core.validate_sampling(sampling)
        generation = await self._engine.submit(self._request(TextPrompt(prompt), n, timeout_s, checked))
        return await generation.result()

    async def achat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        n: int = 1,
        timeout_s: float | None = None,
        **sampling: Any,
    ) -> Result:
        checked = _core.validate_sampling(sampling)
        generation = await self._engine.submit(self._request(_chat(messages), n, timeout_s, checked))
        return await generation.result()

    async def astream(self, prompt: str, *, timeout_s: float | None = None, **sampling: Any) -> AsyncIterator[str]:
        """`stream` for event loops: an asynchronous iterator of text. Leaving it early cancels the request."""
        checked = _core.validate_sampling(sampling)
        request = self._request(TextPrompt(prompt), 1, timeout_s, checked)
        generation = await self._engine.submit(request)
        collector = Collector(request)
        async for index, event in generation:
            collector.add(index, event)
            if isinstance(event, Delta) and event.text:
                yield event.text

    # ---- vectors and tokens -------------------------------------------------------------------------------------

    def embed(self, texts: str | Sequence[str], *, timeout_s: float | None = None) -> FloatArray:
        """L2-normalised vectors, shape (inputs, dimensions), float32. A single text gives one row.

        Raises ContextLengthExceeded for a text longer than the context, InvalidRequest for an empty one.
        """
        return _matrix(self._engine.embed_now(self._embedding_request(texts, timeout_s)))

    async def aembed(self, texts: str | Sequence[str], *, timeout_s: float | None = None) -> FloatArray:
        return _matrix(await self._engine.embed(self._embedding_request(texts, timeout_s)))

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`; `add_special` adds what the model expects around a text."""
        return self._engine.core.tokenize(text, add_special, parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._engine.core.detokenize(tokens)

    # ---- life ---------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        """What the model file says about itself."""
        return self._engine.info

    @property
    def context_size(self) -> int:
        """Tokens one sequence may hold."""
        return self._engine.context_size

    def close(self) -> None:
        """Cancel what runs and free the model. Harmless when closed already."""
        self._engine.close_now()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LLM({self.id!r}, {self.info.description}, context_size={self.context_size})"

    # ---- inside -------------------------------------------------------------------------------------------------

    def _request(self, prompt: Prompt, n: int, timeout_s: float | None, sampling: dict[str, Any]) -> Request:
        return Request(model=self.id, prompts=[prompt], n=n, timeout_s=timeout_s, sampling=sampling)

    def _embedding_request(self, texts: str | Sequence[str], timeout_s: float | None) -> EmbeddingRequest:
        items = [texts] if isinstance(texts, str) else list(texts)
        return EmbeddingRequest(
            model=self.id, inputs=[TextPrompt(_text(item, "texts")) for item in items], timeout_s=timeout_s
        )

    def _stream(self, prompt: Prompt, timeout_s: float | None, sampling: dict[str, Any]) -> TextStream:
        request = self._request(prompt, 1, timeout_s, _core.validate_sampling(sampling))
        return TextStream(self._engine, self._engine.submit_now(request))

    def _run_all(self, requests: list[Request]) -> list[Result]:
        """As much as the queue holds is submitted before anything is waited for; one failure cancels the rest."""
        generations: list[Generation] = []
        try:
            for request in requests:
                generations.append(self._submit_patiently(request, generations))
            return [TextStream(self._engine, generation).result() for generation in generations]
        finally:
            for generation in generations:
                generation.cancel()

    def _submit_patiently(self, request: Request, earlier: list[Generation]) -> Generation:
        while True:
            try:
                return self._engine.submit_now(request)
            except errors.ServiceUnavailable:
                running = [generation for generation in earlier if not generation.finished]
                if not running:
                    raise
                self._engine.wait_finished(running[0])


class TextStream(Iterator[str]):
    """Text as it is generated; `result()` afterwards has the whole. Leaving a `with` block early cancels."""

    def __init__(self, engine: LocalEngine, generation: Generation) -> None:
        self._engine = engine
        self._generation = generation
        self._collector = Collector(generation.request)
        self._pieces: list[str] = []

    def __next__(self) -> str:
        while not self._pieces:
            events = self._engine.wait(self._generation)
            if not events:
                raise StopIteration
            for index, event in events:
                self._collector.add(index, event)
                if isinstance(event, Delta) and event.text:
                    self._pieces.append(event.text)
        return self._pieces.pop(0)

    def result(self) -> Result:
        """The complete result; waits for what is still to come."""
        try:
            for _ in self:
                pass
        except BaseException:
            self.cancel()
            raise
        return self._collector.result()

    def cancel(self) -> None:
        """Stop generating; what is there already can still be read, with finish_reason `cancelled`."""
        self._generation.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


def _locate(model: str | Path, models_dir: str | Path | None) -> tuple[str, Path]:
    path = Path(model)
    if isinstance(model, Path) or path.suffix == ".gguf" or path.exists():
        return path.stem, path
    settings = load_settings()
    registry = Registry(Path(models_dir or settings.models.dir), settings.models.aliases)
    try:
        return str(model), registry.get(str(model)).path
    except errors.ModelNotFound as error:
        raise errors.ModelNotFound(
            f"{error.message}. Download it with: inferno models pull {model}", **error.details
        ) from None


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise errors.InvalidRequest(f"{field} must be text.", field=field)
    return value


def _prompt(prompt: PromptLike) -> Prompt:
    return TextPrompt(prompt) if isinstance(prompt, str) else TokenPrompt(list(prompt))


def _chat(messages: Sequence[Mapping[str, str]]) -> ChatPrompt:
    converted = []
    for index, message in enumerate(messages):
        fields = [_text(message.get(key), f"messages[{index}].{key}") for key in ("role", "content")]
        converted.append(Message(*fields))
    return ChatPrompt(converted)


def _matrix(embeddings: Embeddings) -> FloatArray:
    return np.stack([np.frombuffer(vector, dtype="<f4") for vector in embeddings.vectors])
