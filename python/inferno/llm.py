"""Language models in this process.

>>> from inferno import LLM
>>> with LLM("smollm2-135m-instruct", parallel=4) as llm:
...     print(llm.generate("The capital of France is", max_tokens=8, temperature=0).text)
...     for piece in llm.stream("Once upon a time", max_tokens=32):
...         print(piece, end="")
"""

from __future__ import annotations

import contextlib
import difflib
import operator
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from inferno import _core, errors
from inferno.config import load_settings
from inferno.engine import fitting
from inferno.engine.generation import Collector, Generation
from inferno.engine.local import LocalEngine
from inferno.models import preflight
from inferno.models.parts import first_part, parts_of, without_part
from inferno.models.registry import Registry
from inferno.request import (
    ChatPrompt,
    Delta,
    EmbeddingRequest,
    Embeddings,
    EngineStats,
    Event,
    Message,
    ModelInfo,
    Placement,
    Prompt,
    Request,
    Result,
    TextPrompt,
    TokenPrompt,
)

#: A text, or token ids to continue as they are.
PromptLike: TypeAlias = str | Sequence[int]
#: What the methods take as `prompt`: one prompt, or a list that is computed as one batch.
Prompts: TypeAlias = str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]
#: Mappings with `role` and `content`.
Messages: TypeAlias = Sequence[Mapping[str, str]]
FloatArray: TypeAlias = npt.NDArray[np.float32]


class LLM:
    """A model loaded into this process. Safe to use from several threads and event loops at once.

    Requests that run at the same time share the engine's steps, wherever they come from: a list of prompts, several
    threads, or `asyncio.gather`.

    Methods take sampling fields as keyword arguments: max_tokens, temperature, top_p, top_k, min_p, repeat_penalty,
    seed, stop, logprobs, grammar and the others of `inferno._core.sampling_fields()`, where ranges and defaults are.
    With a `seed`, choice j of a prompt draws with seed + j. `timeout_s` is the time from the call to the last token,
    in seconds; of two requests that wait, the one with the higher `priority` goes first.

    They raise InvalidRequest (its `field` names the argument), ContextLengthExceeded (with `prompt_tokens` and
    `context_size`), ServiceUnavailable (queue full, closed), RequestTimeout, InferenceFailed; all are
    `inferno.errors.InfernoError`. An exception in the caller, KeyboardInterrupt included, cancels what it waits for.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        context_size: int | None = None,
        parallel: int | None = None,
        gpu_layers: int | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        models_dir: str | Path | None = None,
        progress: Callable[[float], bool] | None = None,
        **options: Any,
    ) -> None:
        """Load `model`: the path of a GGUF file (any part of a split one), or the id of one in the models directory;
        nothing is downloaded.

        `context_size`: tokens one sequence may hold, prompt and output; `parallel`: sequences computed at once (each
        takes its share of memory); `batch_size`: tokens computed in one step; `threads`: compute threads, 0 = the
        physical cores; `gpu_layers`: layers kept on the GPU, -1 = all that fit. Further engine options (device,
        queue_size, step_budget_ms, prefix_cache, prefix_store_mb, draft_tokens, load_mode and others) are in
        `inferno._core.engine_fields()`, with the defaults. `progress` gets fractions from 0 to 1 and stops the load by
        returning False.

        Raises ModelNotFound, InvalidRequest (bad file or option), ServiceUnavailable (not enough memory).
        """
        options |= {
            "context_size": context_size,
            "parallel": parallel,
            "gpu_layers": gpu_layers,
            "batch_size": batch_size,
            "threads": threads,
        }
        _check_names(options, _core.engine_fields())
        checked = _core.validate_engine_options(options)
        self.id, path = _located(model, models_dir)
        preflight.check(path)
        fitting.check(_core.estimate_memory(str(path), checked), fitting.physical_memory(), self.id)
        self._engine = LocalEngine(str(path), checked, progress)

    # ---- text ---------------------------------------------------------------------------------------------------

    @overload
    def generate(
        self, prompt: PromptLike, *, n: int = 1, timeout_s: float | None = None, priority: int = 0, **sampling: Any
    ) -> Result: ...

    @overload
    def generate(
        self,
        prompt: Sequence[str] | Sequence[Sequence[int]],
        *,
        n: int = 1,
        timeout_s: float | None = None,
        priority: int = 0,
        **sampling: Any,
    ) -> list[Result]: ...

    def generate(
        self, prompt: Prompts, *, n: int = 1, timeout_s: float | None = None, priority: int = 0, **sampling: Any
    ) -> Result | list[Result]:
        """Continue `prompt`, `n` times.

        A text or a list of token ids gives one Result with `n` choices. A list of those, of any length, is computed
        as one batch and gives a list of Results in the same order; one failure fails them all.
        """
        prompts, is_one = _listed(prompt)
        results = self._run_all(self._requests(prompts, n, timeout_s, priority, sampling))
        return results[0] if is_one else results

    def stream(
        self, prompt: PromptLike, *, timeout_s: float | None = None, priority: int = 0, **sampling: Any
    ) -> TextStream:
        """Continue `prompt`, yielding text as it comes; what the pieces add up to is the text of `generate`."""
        return self._stream(_prompt(prompt), timeout_s, priority, sampling)

    def chat(
        self,
        messages: Messages,
        *,
        n: int = 1,
        timeout_s: float | None = None,
        priority: int = 0,
        **sampling: Any,
    ) -> Result:
        """Answer `messages` (mappings with `role` and `content`) by the model's own chat template."""
        return self._run_all([self._request(_chat(messages), n, timeout_s, priority, _sampling(sampling))])[0]

    def chat_stream(
        self, messages: Messages, *, timeout_s: float | None = None, priority: int = 0, **sampling: Any
    ) -> TextStream:
        """Like `chat`, yielding text as it comes."""
        return self._stream(_chat(messages), timeout_s, priority, sampling)

    # ---- text, asynchronous -------------------------------------------------------------------------------------

    @overload
    async def agenerate(
        self, prompt: PromptLike, *, n: int = 1, timeout_s: float | None = None, priority: int = 0, **sampling: Any
    ) -> Result: ...

    @overload
    async def agenerate(
        self,
        prompt: Sequence[str] | Sequence[Sequence[int]],
        *,
        n: int = 1,
        timeout_s: float | None = None,
        priority: int = 0,
        **sampling: Any,
    ) -> list[Result]: ...

    async def agenerate(
        self, prompt: Prompts, *, n: int = 1, timeout_s: float | None = None, priority: int = 0, **sampling: Any
    ) -> Result | list[Result]:
        """`generate` for event loops."""
        prompts, is_one = _listed(prompt)
        results = await self._arun_all(self._requests(prompts, n, timeout_s, priority, sampling))
        return results[0] if is_one else results

    def astream(
        self, prompt: PromptLike, *, timeout_s: float | None = None, priority: int = 0, **sampling: Any
    ) -> AsyncTextStream:
        """`stream` for event loops: `async for piece in llm.astream(...)`."""
        request = self._request(_prompt(prompt), 1, timeout_s, priority, _sampling(sampling))
        return AsyncTextStream(self._engine, request)

    async def achat(
        self,
        messages: Messages,
        *,
        n: int = 1,
        timeout_s: float | None = None,
        priority: int = 0,
        **sampling: Any,
    ) -> Result:
        """`chat` for event loops."""
        request = self._request(_chat(messages), n, timeout_s, priority, _sampling(sampling))
        return (await self._arun_all([request]))[0]

    def achat_stream(
        self, messages: Messages, *, timeout_s: float | None = None, priority: int = 0, **sampling: Any
    ) -> AsyncTextStream:
        """`chat_stream` for event loops."""
        request = self._request(_chat(messages), 1, timeout_s, priority, _sampling(sampling))
        return AsyncTextStream(self._engine, request)

    # ---- vectors and tokens -------------------------------------------------------------------------------------

    def embed(self, texts: str | Sequence[str], *, timeout_s: float | None = None, priority: int = 0) -> FloatArray:
        """L2-normalised vectors, shape (inputs, dimensions), float32. A single text gives one row.

        Raises InvalidRequest for an empty text, and ContextLengthExceeded, never cutting a text short.
        """
        return _matrix(self._engine.embed_now(self._embedding_request(texts, timeout_s, priority)))

    async def aembed(
        self, texts: str | Sequence[str], *, timeout_s: float | None = None, priority: int = 0
    ) -> FloatArray:
        """`embed` for event loops."""
        return _matrix(await self._engine.embed(self._embedding_request(texts, timeout_s, priority)))

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`. `add_special` adds the tokens that the model expects around a text; with
        `parse_special` the spellings of control tokens are read as those tokens."""
        return self._engine.tokenize(text, add_special, parse_special)

    def detokenize(self, tokens: Sequence[int], *, render_special: bool = False) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return self._engine.detokenize(tokens, render_special)

    # ---- life ---------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        """What the model file says about itself."""
        return self._engine.info

    @property
    def context_size(self) -> int:
        """Tokens one sequence may hold."""
        return self._engine.context_size

    @property
    def memory_bytes(self) -> int:
        """Weights, KV cache and compute buffers."""
        return self._engine.memory_bytes

    @property
    def placement(self) -> Placement:
        """How many layers are on devices, and the memory in the host and on each device."""
        return self._engine.placement

    def stats(self) -> EngineStats:
        """Gauges and running totals of the engine."""
        return self._engine.stats_now()

    def close(self, grace_s: float = 0.0) -> None:
        """Let running requests go on for up to `grace_s` seconds, cancel the rest, free the model. Harmless when
        closed already."""
        self._engine.close_now(grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LLM({self.id!r}, {self.info.description!r}, context_size={self.context_size})"

    # ---- inside -------------------------------------------------------------------------------------------------

    def _requests(
        self, prompts: Iterable[object], n: int, timeout_s: float | None, priority: int, sampling: dict[str, Any]
    ) -> list[Request]:
        checked = _sampling(sampling)
        return [self._request(_prompt(item), n, timeout_s, priority, checked) for item in prompts]

    def _request(
        self, prompt: Prompt, n: int, timeout_s: float | None, priority: int, sampling: dict[str, Any]
    ) -> Request:
        return Request(model=self.id, prompts=[prompt], n=n, timeout_s=timeout_s, priority=priority, sampling=sampling)

    def _embedding_request(
        self, texts: str | Sequence[str], timeout_s: float | None, priority: int
    ) -> EmbeddingRequest:
        items = [texts] if isinstance(texts, str) else texts
        return EmbeddingRequest(
            model=self.id,
            inputs=[TextPrompt(_text(item, f"input[{i}]")) for i, item in enumerate(items)],
            timeout_s=timeout_s,
            priority=priority,
        )

    def _stream(self, prompt: Prompt, timeout_s: float | None, priority: int, sampling: dict[str, Any]) -> TextStream:
        request = self._request(prompt, 1, timeout_s, priority, _sampling(sampling))
        return TextStream(self._engine, self._engine.submit_now(request))

    def _run_all(self, requests: Sequence[Request]) -> list[Result]:
        """As many at once as the queue takes; one failure cancels the rest."""
        results: list[Result] = []
        with _Pending() as pending:
            for index, request in _numbered(requests):
                while (generation := pending.admitted(self._engine.submit_now, request, index)) is None:
                    results.append(self._engine.result(pending.oldest()))
                pending.append(generation)
            while pending:
                results.append(self._engine.result(pending.oldest()))
        return results

    async def _arun_all(self, requests: Sequence[Request]) -> list[Result]:
        results: list[Result] = []
        with _Pending() as pending:
            for index, request in _numbered(requests):
                while (generation := await pending.aadmitted(self._engine.submit, request, index)) is None:
                    results.append(await pending.oldest().result())
                pending.append(generation)
            while pending:
                results.append(await pending.oldest().result())
        return results


class TextStream(Iterator[str]):
    """Text as it is generated. Leaving a `with` block, or dropping the object, cancels what is not generated yet."""

    def __init__(self, engine: LocalEngine, generation: Generation) -> None:
        self._engine = engine
        self._generation = generation
        self._collector = Collector(generation.request)
        self._events = engine.events(generation)

    def __next__(self) -> str:
        while True:
            for index, event in self._events:
                if piece := _collected(self._collector, index, event, self.cancel):
                    return piece
            if self._generation.exhausted:
                raise StopIteration
            self._events = self._engine.events(self._generation)  # an exception has ended a wait, and cancelled

    def result(self) -> Result:
        """The complete result, pieces already read included; waits for what is still to come. Raises the error that
        ended the text."""
        for _ in self:
            pass
        return self._collector.result()

    def cancel(self) -> None:
        """Stop generating. What has been generated can still be read; the finish reason is `cancelled`."""
        self._generation.cancel()

    def __del__(self) -> None:
        self.cancel()  # events() does so only when it has been begun

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class AsyncTextStream(AsyncIterator[str]):
    """Text as it is generated, for event loops. The request is submitted when the first piece is asked for."""

    def __init__(self, engine: LocalEngine, request: Request) -> None:
        self._engine = engine
        self._request = request
        self._collector = Collector(request)
        self._generation: Generation | None = None
        self._events: AsyncGenerator[tuple[int, Event], None] | None = None

    async def __anext__(self) -> str:
        if self._generation is None or self._events is None:
            self._generation = await self._engine.submit(self._request)
            self._events = self._generation.__aiter__()
        while True:
            async for index, event in self._events:
                if piece := _collected(self._collector, index, event, self.cancel):
                    return piece
            if self._generation.exhausted:
                raise StopAsyncIteration
            self._events = self._generation.__aiter__()  # an exception has ended a wait, and cancelled

    async def result(self) -> Result:
        """The complete result, pieces already read included; waits for what is still to come. Raises the error that
        ended the text."""
        async for _ in self:
            pass
        return self._collector.result()

    def cancel(self) -> None:
        """Stop generating. What has been generated can still be read; the finish reason is `cancelled`."""
        if self._generation is not None:
            self._generation.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class _Pending(deque[Generation]):
    """Accepted requests whose results have not been asked for yet. Leaving the block cancels them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for generation in self:
            generation.cancel()

    def oldest(self) -> Generation:
        return self.popleft()

    def admitted(
        self, submit: Callable[[Request], Generation], request: Request, index: int | None
    ) -> Generation | None:
        """None when the queue is full of our own requests, so that waiting for one of them helps."""
        with self._queue_full_is_none(index):
            return submit(request)
        return None

    async def aadmitted(
        self, submit: Callable[[Request], Any], request: Request, index: int | None
    ) -> Generation | None:
        with self._queue_full_is_none(index):
            generation: Generation = await submit(request)
            return generation
        return None

    @contextlib.contextmanager
    def _queue_full_is_none(self, index: int | None) -> Iterator[None]:
        try:
            yield
        except errors.ServiceUnavailable:
            if not self:
                raise
        except errors.InvalidRequest as error:
            if index is not None:
                error.details["prompt_index"] = index
            raise


def _numbered(requests: Sequence[Request]) -> Iterator[tuple[int | None, Request]]:
    """(position in the batch, request); a single request has no position."""
    for index, request in enumerate(requests):
        yield (index if len(requests) > 1 else None), request


def _located(model: str | Path, models_dir: str | Path | None) -> tuple[str, Path]:
    """(id, path) of a file or of an id in the models directory."""
    path = Path(model)
    if isinstance(model, Path) or path.suffix == ".gguf" or path.is_file():
        if not any(part.exists() for part in parts_of(path)):
            raise errors.ModelNotFound(f"There is no file {path.name!r}.")
        return without_part(path.stem), first_part(path)
    if models_dir is None:
        settings = load_settings()
        registry = Registry(settings.models.dir, settings.models.aliases)
    else:
        registry = Registry(Path(models_dir))
    try:
        return model, registry.get(model).path
    except errors.ModelNotFound as error:
        raise errors.ModelNotFound(
            f"{error.message}. To download it: inferno models pull {model}", **error.details
        ) from None


def _sampling(fields: dict[str, Any]) -> dict[str, Any]:
    _check_names(fields, _core.sampling_fields())
    return _core.validate_sampling(fields)


def _check_names(given: Iterable[str], known: Sequence[_core.FieldRow]) -> None:
    names = [row["name"] for row in known]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise errors.InvalidRequest(f"There is no field named {name}.{hint}", field=name)


def _listed(prompt: Prompts) -> tuple[list[object], bool]:
    """(prompts, whether it is one and no list)"""
    if isinstance(prompt, str):
        return [prompt], True
    items = _items(prompt)
    return ([items], True) if items and isinstance(items[0], Integral) else (items, False)


def _prompt(prompt: object) -> Prompt:
    if isinstance(prompt, str):
        return TextPrompt(prompt)
    tokens = _items(prompt)
    if not all(isinstance(token, Integral) for token in tokens):
        raise _no_prompt()
    return TokenPrompt([operator.index(token) for token in tokens])  # numpy's are no ints


def _items(prompt: object) -> list[Any]:
    """Of a list, a numpy array and the like. Bytes and mappings can be iterated over too, and mean something else."""
    if not isinstance(prompt, Iterable) or isinstance(prompt, bytes | bytearray | memoryview | Mapping):
        raise _no_prompt()
    return list(prompt)


def _no_prompt() -> errors.InvalidRequest:
    return errors.InvalidRequest("prompt must be text or a list of token ids.", field="prompt")


def _chat(messages: Messages) -> ChatPrompt:
    return ChatPrompt([_message(message, index) for index, message in enumerate(messages)])


def _message(message: object, index: int) -> Message:
    if not isinstance(message, Mapping):
        raise errors.InvalidRequest(f"messages[{index}] must be a mapping.", field=f"messages[{index}]")
    return Message(*(_text(message.get(key), f"messages[{index}].{key}") for key in ("role", "content")))


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise errors.InvalidRequest(f"{field} must be text.", field=field)
    return value


def _collected(collector: Collector, index: int, event: Event, cancel: Callable[[], None]) -> str:
    """Hand the event to the collector; the text in it."""
    try:
        collector.add(index, event)
    except errors.InfernoError:
        cancel()
        raise
    return event.text if isinstance(event, Delta) else ""


def _matrix(embeddings: Embeddings) -> FloatArray:
    return np.stack([np.frombuffer(vector, dtype="<f4") for vector in embeddings.vectors]).astype(
        np.float32, copy=False
    )
