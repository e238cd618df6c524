"""Looks a GGUF file over before the engine sees it.

llama.cpp aborts or worse on some malformed files, so sizes, counts, types and offsets are checked here first, with
Python's unbounded integers and bounded memory, and so are the things that llama.cpp asserts while it loads.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from inferno import errors
from inferno.models.parts import MAX_PARTS, parts_of, place

MAX_TENSORS = 65_536
MAX_KEYS = 65_536
MAX_KEY_LENGTH = 65_535
MAX_NAME_LENGTH = 63
MAX_STRING = 1 << 20
MAX_TEMPLATE = 256 << 10
MAX_ARRAY = 1 << 24
MAX_STRINGS = 1 << 21  # strings of one array
MAX_VOCABULARY = 1 << 20
MAX_VOCABULARY_BYTES = 32 << 20
MAX_METADATA = 128 << 20  # everything before the tensors' data
MAX_ALIGNMENT = 1 << 20
MAX_ELEMENTS = 1 << 40
MAX_LAYERS = 512
MAX_EXPERTS = 1024

_BOOL, _STRING, _ARRAY = 7, 8, 9
_UINT32, _INT32, _FLOAT32 = 4, 5, 6
#: GGUF scalar types.
_SCALARS = {
    code: struct.Struct("<" + fmt) for code, fmt in zip((0, 1, 2, 3, 4, 5, 6, 10, 11, 12), "BbHhIifQqd", strict=True)
}
_SCALARS[_BOOL] = struct.Struct("<B")
_U64 = struct.Struct("<Q")
#: ggml tensor types: code -> (elements in a block, bytes of a block).
_TENSOR_TYPES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_BYTE_TOKEN_TYPE = 6
_VOCABULARY = "tokenizer.ggml.tokens"


class _Invalid(Exception):
    """Why the file is refused; becomes an InvalidRequest at the surface."""


def _fail(reason: str) -> NoReturn:
    raise _Invalid(reason)


def check(path: Path) -> None:
    """Return when the file may be given to the engine; raise InvalidRequest (field `model`) saying why not.

    Of a split model `path` is the first part, and the others are looked at too. Opens without blocking, whatever
    `path` is. The message never contains the path.
    """
    try:
        _check_parts_are_there(path)
        header = _read_header(path)
        _check_metadata(header)
        for part in _other_parts(path, header):
            _read_header(part)
    except _Invalid as reason:
        raise errors.InvalidRequest(f"The model file is not valid: {reason}.", field="model") from None


def _check_parts_are_there(path: Path) -> None:
    parts = parts_of(path)
    if len(parts) > 1 and (absent := [part.name for part in parts if not part.exists()]):
        _fail(
            f"of its {len(parts)} parts there is no {', '.join(map(_shown, absent[:3]))}{', ...' * (len(absent) > 3)}"
        )


def _read_header(path: Path) -> _Header:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        _fail("it cannot be opened")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            _fail("it is not a regular file")
        return _Header(_Reader(descriptor, status.st_size))
    except OSError:
        _fail("it cannot be read")
    finally:
        os.close(descriptor)


def _other_parts(path: Path, header: _Header) -> Iterable[Path]:
    count = header.integer("split.count") or 0
    if count < 2:
        return
    if place(path) != (1, count) or count > MAX_PARTS:
        _fail(f"it is one of {count} parts, and not named like the first")
    yield from parts_of(path)[1:]


class _Reader:
    """Reads forward through a window, so that a file that shrinks meanwhile is an error and not a signal."""

    WINDOW = MAX_STRING + 4096

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor = descriptor
        self._window = b""
        self._start = 0  # the window's place in the file
        self._at = 0  # in the window

    @property
    def position(self) -> int:
        return self._start + self._at

    def take(self, n: int) -> bytes:
        self._need(n)
        self._at += n
        return self._window[self._at - n : self._at]

    def skip(self, n: int) -> None:
        if n > self.size - self.position:
            _fail("it ends too soon")
        self._at += n

    def number(self, kind: struct.Struct) -> Any:
        return kind.unpack(self.take(kind.size))[0]

    def string(self, limit: int) -> bytes:
        length: int = self.number(_U64)
        if length > limit:
            _fail("a string is too long")
        return self.take(length)

    def strings(self, count: int, limit: int, keep: list[bytes] | None) -> None:
        """Pass over `count` strings; with `keep`, put them there. The inner loop runs within one window."""
        if count * 8 > self.size - self.position:
            _fail("it ends too soon")
        unpack = _U64.unpack_from
        while count:
            self._need(8)
            window, at, end = self._window, self._at, len(self._window)
            while count and at + 8 <= end:
                stop = at + 8 + (length := unpack(window, at)[0])
                if length > limit:
                    _fail("a string is too long")
                if stop > end:
                    break
                if keep is not None:
                    keep.append(window[at + 8 : stop])
                at = stop
                count -= 1
            self._at = at
            if count:
                self._need(8)
                self._need(8 + min(unpack(self._window, self._at)[0], limit))

    def _need(self, n: int) -> None:
        """Have the next `n` bytes in the window."""
        missing = n - (len(self._window) - self._at)
        if missing <= 0:
            return
        if n > self.size - self.position:
            _fail("it ends too soon")
        if self.position + n > MAX_METADATA:
            _fail("it has too much metadata")
        kept = self._window[self._at :]
        self._start, self._at = self.position, 0
        wanted = min(max(n, self.WINDOW), self.size - self._start) - len(kept)
        read = os.pread(self._descriptor, wanted, self._start + len(kept))
        self._window = kept + read
        if len(self._window) < n:
            _fail("it changes while it is read")


class _Array(NamedTuple):
    kind: int
    length: int
    raw: bytes  # of token types and of short arrays of numbers; else empty


class _Header:
    """Everything before the tensors' data, sound in itself; `_check_metadata` says whether it makes a model."""

    def __init__(self, reader: _Reader) -> None:
        self.values: dict[str, int | float | bool | bytes] = {}
        self.arrays: dict[str, _Array] = {}
        self.tokens: list[bytes] = []
        self.n_tensors = 0
        self._reader = reader
        self._read()

    def integer(self, key: str) -> int | None:
        """None when there is no such key."""
        value = self.values.get(key)
        if isinstance(value, bool | float | bytes) or key in self.arrays:
            _fail(f"{_shown(key)} is not an integer")
        return value

    def integers(self, key: str) -> list[int] | None:
        """One for all layers or one for each. None when there is no such key."""
        array = self.arrays.get(key)
        if array is None:
            value = self.integer(key)
            return None if value is None else [value]
        if array.kind not in (_UINT32, _INT32) or not 1 <= array.length <= MAX_LAYERS:
            _fail(f"{_shown(key)} does not have an integer for each layer")
        return [value for (value,) in _SCALARS[array.kind].iter_unpack(array.raw)]

    def _read(self) -> None:
        if self._reader.size < 24 or self._reader.take(4) != b"GGUF":
            _fail("it does not begin like a GGUF file")
        version = self._reader.number(_SCALARS[_UINT32])
        if version not in (2, 3):
            _fail(f"GGUF version {version} is not known")
        self.n_tensors, n_keys = self._reader.number(_U64), self._reader.number(_U64)
        if self.n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
            _fail("it claims too many tensors or keys")
        for _ in range(n_keys):
            self._read_key()
        self._read_tensors(self.n_tensors)

    # ---- keys and values ----------------------------------------------------------------------------------------

    def _read_key(self) -> None:
        try:
            key = self._reader.string(MAX_KEY_LENGTH).decode()
        except UnicodeDecodeError:
            _fail("a key is not UTF-8")
        if not key or key in self.values or key in self.arrays:
            _fail("a key is empty or occurs twice")
        kind = self._reader.number(_SCALARS[_UINT32])
        if kind == _ARRAY:
            self.arrays[key] = self._read_array(key)
        elif kind == _STRING:
            # What is looked at is short; there is no need to keep more.
            limit = MAX_TEMPLATE if key.startswith("tokenizer.chat_template") else MAX_STRING
            self.values[key] = self._reader.string(limit)[:64]
        elif kind in _SCALARS:
            self.values[key] = self._read_scalar(kind)
        else:
            _fail(f"{_shown(key)} has an unknown type")

    def _read_scalar(self, kind: int) -> int | float | bool:
        value: int | float = self._reader.number(_SCALARS[kind])
        if kind != _BOOL:
            return value
        if value not in (0, 1):
            _fail("a boolean is neither true nor false")
        return bool(value)

    def _read_array(self, key: str) -> _Array:
        kind, count = self._reader.number(_SCALARS[_UINT32]), self._reader.number(_U64)
        if count > (MAX_STRINGS if kind == _STRING else MAX_ARRAY):
            _fail(f"{_shown(key)} is too long")
        if kind == _STRING:
            self._reader.strings(count, MAX_STRING, self._keeper(key, count))
        elif kind in _SCALARS:
            return _Array(kind, count, self._read_numbers(key, count * _SCALARS[kind].size))
        else:
            _fail(f"{_shown(key)} has elements of an unknown type")
        return _Array(kind, count, b"")

    def _keeper(self, key: str, count: int) -> list[bytes] | None:
        if key != _VOCABULARY:
            return None
        if count > MAX_VOCABULARY:
            _fail("its vocabulary is too large")
        return self.tokens

    def _read_numbers(self, key: str, n: int) -> bytes:
        if n <= 8 * MAX_LAYERS or (key == "tokenizer.ggml.token_type" and n <= 8 * MAX_VOCABULARY):
            return self._reader.take(n)
        self._reader.skip(n)
        return b""

    # ---- tensors ------------------------------------------------------------------------------------------------

    def _read_tensors(self, n: int) -> None:
        alignment = self._alignment()
        names: set[bytes] = set()
        extents = []
        for _ in range(n):
            name = self._reader.string(MAX_NAME_LENGTH)
            if not name or name in names:
                _fail("a tensor has no name or one that occurs twice")
            names.add(name)
            extents.append(self._read_tensor())
        start = _padded(self._reader.position, alignment)
        end = 0
        for offset, length in extents:
            # llama.cpp, too, wants them in this order and without gaps.
            if offset != end:
                _fail("a tensor does not begin where the one before it ends")
            if start + offset + length > self._reader.size:
                _fail("a tensor reaches past the end of the file")
            end = _padded(offset + length, alignment)

    def _read_tensor(self) -> tuple[int, int]:
        """Where the tensor is in the data, and how many bytes it has."""
        n_dims = self._reader.number(_SCALARS[_UINT32])
        if not 1 <= n_dims <= 4:
            _fail("a tensor does not have 1 to 4 dimensions")
        dims = [self._reader.number(_U64) for _ in range(n_dims)]
        kind, offset = self._reader.number(_SCALARS[_UINT32]), self._reader.number(_U64)
        if kind not in _TENSOR_TYPES:
            _fail(f"a tensor has the unknown type {kind}")
        block, block_bytes = _TENSOR_TYPES[kind]
        elements = 1
        for dim in dims:
            elements *= dim
            if not 1 <= dim <= MAX_ELEMENTS or elements > MAX_ELEMENTS:
                _fail("a tensor's dimensions are out of range")
        if dims[0] % block:
            _fail("a tensor's rows are not whole blocks")
        return offset, elements // block * block_bytes

    def _alignment(self) -> int:
        alignment = self.integer("general.alignment")
        if alignment is None:
            return 32
        if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            _fail("its alignment is not a sane power of two")
        return alignment


# ---- what llama.cpp takes for granted -------------------------------------------------------------------------------


def _check_metadata(header: _Header) -> None:
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, bytes) or not re.fullmatch(rb"[a-z0-9_.-]{1,63}", architecture):
        _fail("it names no architecture")
    prefix = architecture.decode() + "."
    _check_sizes(header, prefix)
    _check_heads(header, prefix)
    _check_experts(header, prefix)
    _check_vocabulary(header)
    if header.n_tensors == 0 and (header.integer("split.count") or 0) < 2:
        _fail("it has no tensors")


def _check_sizes(header: _Header, prefix: str) -> None:
    for name, high in (
        ("block_count", MAX_LAYERS),
        ("context_length", (1 << 31) - 1),
        ("embedding_length", 1 << 20),
    ):
        value = header.integer(prefix + name)
        if value is None or not 1 <= value <= high:
            _fail(f"{prefix}{name} is missing or out of range")
    layers = header.integer(prefix + "block_count") or 0
    if not 0 <= (header.integer(prefix + "nextn_predict_layers") or 0) <= layers:
        _fail(f"{prefix}nextn_predict_layers is out of range")
    for key, epsilon in header.values.items():
        of_ours = key.startswith(prefix) and key.endswith("_epsilon")
        if of_ours and not (isinstance(epsilon, float) and 0 <= epsilon <= 1):
            _fail(f"{_shown(key)} is out of range")
    scaling = header.values.get(prefix + "rope.scaling.type", b"none")
    if scaling not in (b"none", b"linear", b"yarn", b"longrope"):
        _fail(f"{prefix}rope.scaling.type is not known")


def _check_heads(header: _Header, prefix: str) -> None:
    """Layers without attention have 0 heads; else each head of keys serves the same number of queries."""
    layers = header.integer(prefix + "block_count") or 0
    per_layer = []
    for name in ("attention.head_count", "attention.head_count_kv"):
        values = header.integers(prefix + name)
        if values is None:
            return
        if prefix + name in header.arrays and len(values) != layers:
            _fail(f"{prefix}{name} does not have an integer for each layer")
        if not all(0 <= value <= 1 << 16 for value in values):
            _fail(f"{prefix}{name} is out of range")
        per_layer.append(values * layers if len(values) == 1 else values)
    if any(n_kv and n % n_kv for n, n_kv in zip(*per_layer, strict=True)):
        _fail(f"{prefix}attention.head_count_kv does not divide the heads")


def _check_experts(header: _Header, prefix: str) -> None:
    count = header.integer(prefix + "expert_count") or 0
    used = max(header.integers(prefix + "expert_used_count") or [0])
    groups = header.integer(prefix + "expert_group_count") or 0
    groups_used = header.integer(prefix + "expert_group_used_count") or 0
    if prefix.startswith("hunyuan") and count <= 1:
        return  # read by llama.cpp as no experts
    if not 0 <= count <= MAX_EXPERTS or not 0 <= used <= count or (count > 0 and used == 0):
        _fail("its numbers of experts do not fit together")
    grouped = groups > 1 and not (count % groups == 0 and 0 < groups_used < groups)
    if not 0 <= groups < max(count, 1) or grouped:
        _fail("its groups of experts do not fit together")


def _check_vocabulary(header: _Header) -> None:
    if not isinstance(header.values.get("tokenizer.ggml.model"), bytes):
        _fail("it has no tokenizer")
    count = len(header.tokens)
    if count == 0:
        _fail("it has no vocabulary")
    if sum(map(len, header.tokens)) > MAX_VOCABULARY_BYTES:
        _fail("its vocabulary is too large")
    # llama.cpp asserts that all are different, after it has cut each at a NUL and named the empty ones.
    named = (token.partition(b"\0")[0] or b"[EMPTY_%d]" % i for i, token in enumerate(header.tokens))
    if len(set(named)) != count:
        _fail("a token occurs twice in its vocabulary")
    _check_vocabulary_arrays(header, count)
    _check_token_ids(header, count)
    _check_byte_tokens(header)


def _check_vocabulary_arrays(header: _Header, count: int) -> None:
    for name, kinds, length in (
        ("scores", (_INT32, _FLOAT32), count),
        ("token_type", (_INT32,), count),
        ("merges", (_STRING,), None),
    ):
        key = f"tokenizer.ggml.{name}"
        array = header.arrays.get(key)
        if key in header.values or (array is not None and array.kind not in kinds):
            _fail(f"{key} has the wrong type")
        if array is not None and length is not None and array.length != length:
            _fail(f"{key} does not match the vocabulary")


def _check_token_ids(header: _Header, count: int) -> None:
    for key in header.values:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            value = header.integer(key)
            # All bits set stands for "none" in files written by older converters.
            if value not in (-1, 0xFFFFFFFF) and not 0 <= (value or 0) < count:
                _fail(f"{_shown(key)} is outside the vocabulary")


def _check_byte_tokens(header: _Header) -> None:
    types = header.arrays.get("tokenizer.ggml.token_type")
    if types is None:
        return
    kinds = _SCALARS[_INT32].iter_unpack(types.raw)
    for token, (kind,) in zip(header.tokens, islice(kinds, types.length), strict=True):
        if kind == _BYTE_TOKEN_TYPE and not _BYTE_TOKEN.fullmatch(token):
            _fail("a byte token is not of the form <0xHH>")


def _padded(n: int, alignment: int) -> int:
    return (n + alignment - 1) // alignment * alignment


def _shown(key: str) -> str:
    """A key as it may stand in a message."""
    return key if len(key) <= 100 and re.fullmatch(r"[A-Za-z0-9_.-]+", key) else "a value"
