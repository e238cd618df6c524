"""The C++ engine. Thread-safe; blocking calls release the GIL. Errors are `inferno.errors` exceptions."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

#: Of a portable build the variant that this processor runs best, "haswell" for one; else "native", compiled for the
#: machine that built it, or "fixed". Where no variant runs, the import fails and says so.
cpu_code: str

class FieldRow(TypedDict):
    """One knob: `type` is integer, number, boolean, string, path, strings, integers, token_biases or json;
    `min`/`max` bound the value or a list's items; `max_items` a list; `max_length` a string's UTF-8 bytes. 0 means no
    such bound, and no `choices` that any string may be."""

    name: str
    type: str
    default: Any
    min: float
    max: float
    min_exclusive: bool
    max_items: int
    max_length: int
    choices: list[str]
    help: str

class DeviceRow(TypedDict):
    """`kind` is gpu, integrated (shares the host's memory) or software (the processor). 0 bytes: the driver does not
    say."""

    name: str
    description: str
    kind: str
    total_bytes: int
    free_bytes: int

class Memory(TypedDict):
    """`total_bytes` are the four before it; `host_bytes` what of it is in the host's memory; `device_bytes` what is on
    each device, by its name; `gpu_layers` how many layers are there, the output counted as one; `context_size` the
    tokens that one sequence may hold."""

    model_bytes: int
    context_bytes: int
    compute_bytes: int
    store_bytes: int
    total_bytes: int
    host_bytes: int
    context_size: int
    device_bytes: dict[str, int]
    gpu_layers: int

def gpu_backends() -> list[str]:
    """The GPU backends that this build has. Starts no driver."""

def devices() -> list[DeviceRow]:
    """The devices of these backends; starts their drivers, which may take memory there until the process ends."""

def sampling_fields() -> list[FieldRow]: ...
def engine_fields() -> list[FieldRow]: ...
def validate_sampling(fields: dict[str, Any]) -> dict[str, Any]:
    """Check names, types and ranges; None means the default. Returns only the fields given, in canonical types.

    `logit_bias` is a mapping of token id (int or decimal string) to number. Raises InvalidRequest with the field.
    """

def validate_engine_options(fields: dict[str, Any]) -> dict[str, Any]: ...
def inspect_model(path: str) -> dict[str, Any]:
    """The fields of `inferno.request.ModelInfo`, from the file's header. Raises InvalidRequest."""

def estimate_memory(path: str, options: dict[str, Any]) -> Memory:
    """What loading would take at most. Raises InvalidRequest."""

def list_tensors(path: str) -> list[tuple[str, str, list[int], int]]:
    """(name, type, shape, bytes) of all parts' tensors; a shape begins with the length of a row.

    Raises InvalidRequest."""

def file_types() -> list[str]:
    """What `quantize` takes as `type`, in any case."""

def plan_quantization(
    source: str, type: str, leave_output: bool = ..., pure: bool = ..., imatrix: str = ...
) -> tuple[int, bool, bool]:
    """(bytes of the result's tensors, whether a quantized tensor would change its type, whether an importance matrix is
    missing), without computing. Raises InvalidRequest."""

def quantize(
    source: str,
    target: str,
    type: str,
    threads: int = ...,
    allow_requantize: bool = ...,
    leave_output: bool = ...,
    pure: bool = ...,
    imatrix: str = ...,
    progress: Callable[[int, int], object] | None = ...,
) -> int:
    """Write `target`, which a failure leaves incomplete; how many tensors took another type than planned.

    `progress` gets (tensors begun, all tensors). One call at a time in a process. Raises InvalidRequest."""

def measure_perplexity(path: str, options: dict[str, Any], text: str) -> tuple[float, int]:
    """(mean negative log likelihood of a token in nats, tokens foretold). Raises InvalidRequest, ServiceUnavailable."""

def set_log_level(level: int) -> None:
    """llama.cpp's own messages go to stderr up to this level: 0 none, 1 errors, 2 warnings, 3 info, 4 debug."""

class Engine:
    def __init__(
        self, path: str, options: dict[str, Any] = ..., progress: Callable[[float], bool] | None = ...
    ) -> None:
        """Load a GGUF file and start the engine thread. Raises InvalidRequest, ServiceUnavailable."""

    @property
    def info(self) -> dict[str, Any]: ...
    @property
    def context_size(self) -> int: ...
    @property
    def max_token_bytes(self) -> int:
        """The most bytes of a text that become one token; 0 where there is no such number, because parts of a text
        become none."""

    @property
    def memory(self) -> Memory: ...
    @property
    def wake_fd(self) -> int:
        """Readable when events wait. Reading it is `drain`'s business."""

    def tokenize(self, text: str, add_special: bool = ..., parse_special: bool = ...) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int], render_special: bool = ...) -> str: ...
    def render_chat(self, messages: Sequence[tuple[str, str]]) -> tuple[list[int], list[str]]:
        """(tokens, stop texts) for (role, content) messages, by the model's own template."""

    def submit(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sequence[dict[str, Any]],
        priority: int = ...,
        timeout_s: float | None = ...,
        cache_salt: int = ...,
    ) -> list[int]:
        """Take queue places for all sequences or for none; sequence ids in order."""

    def submit_embeddings(
        self, inputs: Sequence[Sequence[int]], priority: int = ..., timeout_s: float | None = ...
    ) -> list[int]: ...
    def cancel(self, sequence_ids: Sequence[int]) -> None: ...
    def drain(self) -> list[tuple[Any, ...]]:
        """Events since the last call: tuples laid out as `inferno.request.Delta` (tag 0) and `Finish` (tag 1)."""

    def wait(self, timeout_s: float) -> bool:
        """Block until events wait or the time is over; True when events wait."""

    def stats(self) -> dict[str, Any]: ...
    def close(self, grace_s: float = ...) -> None:
        """Refuse new work, wait up to `grace_s` seconds for accepted work, cancel the rest, free the model."""
