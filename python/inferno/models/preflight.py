"""Looks a GGUF file over before the engine sees it.

llama.cpp aborts or worse on some malformed files, so sizes, counts, types and offsets are checked here first, with
Python's unbounded integers and bounded memory. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import struct
from pathlib import Path
from typing import Any, NoReturn

from inferno import errors

MAX_TENSORS = 65_536
MAX_KEYS = 65_536
MAX_KEY_LENGTH = 65_535
MAX_NAME_LENGTH = 127
MAX_STRING = 1 << 20
MAX_ARRAY = 1 << 24
MAX_ALIGNMENT = 1 << 20
MAX_LAYERS = 512
MAX_DIMENSION = 1 << 40

_STRING, _ARRAY = 8, 9
#: GGUF scalar types: code -> struct format.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALAR_SIZE = {code: struct.calcsize("<" + fmt) for code, fmt in _SCALARS.items()}
#: ggml tensor types: code -> (elements in a block, bytes of a block).
_TENSOR_TYPES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_BYTE_TOKEN_TYPE = 6


class _Invalid(Exception):
    """Why the file is refused; becomes an InvalidRequest at the surface."""


def check(path: Path) -> None:
    """Return when the file may be given to the engine; raise InvalidRequest (field `model`) saying why not.

    Opens without blocking, whatever `path` is. The message never contains the path.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        raise errors.InvalidRequest("The model file cannot be opened.", field="model") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise errors.InvalidRequest("The model is not a regular file.", field="model")
        size = os.fstat(descriptor).st_size
        try:
            if size < 24:
                raise _Invalid("it is too short")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _File(data, size).check()
        except _Invalid as reason:
            raise errors.InvalidRequest(f"The model file is not valid GGUF: {reason}.", field="model") from None


def _is_index(value: Any, count: int) -> bool:
    return isinstance(value, int) and 0 <= value < count


def _fail(reason: str) -> NoReturn:
    raise _Invalid(reason)


class _File:
    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data = data
        self._size = size
        self._at = 0
        self._values: dict[str, Any] = {}
        self._arrays: dict[str, tuple[int, int, int]] = {}  # key -> (element type, count, offset)

    def check(self) -> None:
        if self._take(4) != b"GGUF":
            _fail("it does not begin with GGUF")
        version = self._number("I")
        if version not in (2, 3):
            _fail(f"version {version} is not known")
        n_tensors, n_keys = self._number("Q"), self._number("Q")
        if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
            _fail("it claims too many tensors or keys")
        for _ in range(n_keys):
            self._key()
        extents = self._tensors(n_tensors)
        self._check_extents(extents)
        self._check_metadata()

    # ---- reading ------------------------------------------------------------------------------------------------

    def _skip(self, n: int) -> int:
        start = self._at
        if n > self._size - start:
            _fail("it ends too soon")
        self._at = start + n
        return start

    def _take(self, n: int) -> bytes:
        start = self._skip(n)
        return self._data[start : start + n]

    def _number(self, fmt: str) -> Any:
        start = self._skip(struct.calcsize("<" + fmt))
        return struct.unpack_from("<" + fmt, self._data, start)[0]

    def _string(self, limit: int) -> bytes:
        length = self._number("Q")
        if length > limit:
            _fail("a string is too long")
        return self._take(length)

    # ---- metadata -----------------------------------------------------------------------------------------------

    def _key(self) -> None:
        try:
            key = self._string(MAX_KEY_LENGTH).decode()
        except UnicodeDecodeError:
            _fail("a key is not UTF-8")
        if key in self._values or key in self._arrays:
            _fail("a key occurs twice")
        kind = self._number("I")
        if kind == _ARRAY:
            self._array(key)
        elif kind == _STRING:
            self._values[key] = self._string(MAX_STRING)
        elif kind in _SCALARS:
            self._values[key] = self._number(_SCALARS[kind])
        else:
            _fail("a value has an unknown type")

    def _array(self, key: str) -> None:
        kind, count = self._number("I"), self._number("Q")
        if count > MAX_ARRAY:
            _fail("an array is too long")
        self._arrays[key] = (kind, count, self._at)
        if kind == _STRING:
            self._skip_strings(count)
        elif kind in _SCALAR_SIZE:
            self._skip(count * _SCALAR_SIZE[kind])
        else:
            _fail("an array has elements of an unknown type")

    def _skip_strings(self, count: int) -> None:
        unpack, data, size, at = struct.Struct("<Q").unpack_from, self._data, self._size, self._at
        for _ in range(count):
            if at + 8 > size:
                _fail("it ends too soon")
            length = unpack(data, at)[0]
            if length > MAX_STRING:
                _fail("a string is too long")
            at += 8 + length
        self._at = at
        self._skip(0) if at <= size else _fail("it ends too soon")

    # ---- tensors ------------------------------------------------------------------------------------------------

    def _tensors(self, n: int) -> list[tuple[int, int]]:
        names: set[bytes] = set()
        extents = []
        alignment = self._alignment()
        for _ in range(n):
            name = self._string(MAX_NAME_LENGTH)
            if not name or name in names:
                _fail("a tensor has no name or one that occurs twice")
            names.add(name)
            extents.append(self._tensor(alignment))
        return extents

    def _tensor(self, alignment: int) -> tuple[int, int]:
        n_dims = self._number("I")
        if not 1 <= n_dims <= 4:
            _fail("a tensor does not have 1 to 4 dimensions")
        dims = [self._number("Q") for _ in range(n_dims)]
        kind, offset = self._number("I"), self._number("Q")
        if kind not in _TENSOR_TYPES:
            _fail(f"a tensor has the unknown type {kind}")
        block, block_bytes = _TENSOR_TYPES[kind]
        elements = 1
        for dim in dims:
            elements *= dim
            if not 1 <= dim <= MAX_DIMENSION or elements > MAX_DIMENSION:
                _fail("a tensor's dimensions are out of range")
        if dims[0] % block:
            _fail("a tensor's rows are not whole blocks")
        if offset % alignment:
            _fail("a tensor is not aligned")
        return offset, elements // block * block_bytes

    def _alignment(self) -> int:
        alignment = self._values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            _fail("its alignment is not a sane power of two")
        return alignment

    def _check_extents(self, extents: list[tuple[int, int]]) -> None:
        alignment = self._alignment()
        start = (self._at + alignment - 1) // alignment * alignment
        end = 0
        for offset, length in sorted(extents):
            if offset < end:
                _fail("tensors overlap")
            end = offset + length
            if start + end > self._size:
                _fail("a tensor reaches past the end of the file")

    # ---- what llama.cpp takes for granted -----------------------------------------------------------------------

    def _check_metadata(self) -> None:
        architecture = self._values.get("general.architecture")
        if not isinstance(architecture, bytes) or not re.fullmatch(rb"[a-z0-9_.-]{1,64}", architecture):
            _fail("it names no architecture")
        prefix = architecture.decode() + "."
        for name, low, high in (
            ("block_count", 1, MAX_LAYERS),
            ("context_length", 1, (1 << 31) - 1),
            ("embedding_length", 1, 1 << 20),
            ("attention.head_count", 1, 1 << 16),
        ):
            value = self._values.get(prefix + name)
            if value is not None and (not isinstance(value, int) or not low <= value <= high):
                _fail(f"{prefix}{name} is out of range")
        if f"{prefix}block_count" not in self._values or f"{prefix}context_length" not in self._values:
            _fail("it does not say how many layers or how much context it has")
        self._check_vocabulary()

    def _check_vocabulary(self) -> None:
        if not isinstance(self._values.get("tokenizer.ggml.model"), bytes):
            _fail("it has no tokenizer")
        kind, count, offset = self._arrays.get("tokenizer.ggml.tokens", (0, 0, 0))
        if kind != _STRING or count == 0:
            _fail("it has no vocabulary")
        for key, kinds in (("scores", (6,)), ("token_type", (4, 5))):
            other = self._arrays.get(f"tokenizer.ggml.{key}")
            if other is not None and (other[0] not in kinds or other[1] != count):
                _fail(f"tokenizer.ggml.{key} does not match the vocabulary")
        merges = self._arrays.get("tokenizer.ggml.merges")
        if merges is not None and merges[0] != _STRING:
            _fail("tokenizer.ggml.merges are not strings")
        self._check_token_ids(count)
        self._check_byte_tokens(count, offset)

    def _check_token_ids(self, count: int) -> None:
        for key, value in self._values.items():
            names_token = key.startswith("tokenizer.ggml.") and key.endswith("_token_id")
            # All bits set stands for "none" in files written by older converters.
            if names_token and value not in (-1, 0xFFFFFFFF) and not _is_index(value, count):
                _fail(f"{key} is outside the vocabulary")

    def _check_byte_tokens(self, count: int, offset: int) -> None:
        types = self._arrays.get("tokenizer.ggml.token_type")
        if types is None:
            return
        raw = self._data[types[2] : types[2] + 4 * count]
        byte_ids = {i for i, (kind,) in enumerate(struct.iter_unpack("<i", raw)) if kind == _BYTE_TOKEN_TYPE}
        if not byte_ids:
            return
        self._at = offset
        for i in range(count):
            text = self._string(MAX_STRING)
            if i in byte_ids and not _BYTE_TOKEN.fullmatch(text):
                _fail("a byte token is not of the form <0xHH>")
