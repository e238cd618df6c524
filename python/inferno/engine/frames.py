"""What a server process and its workers say to each other: MessagePack frames on a socket pair.

A frame is a 4-byte big-endian length and one message. Messages are positional arrays whose first item is a tag.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import msgspec

from inferno.request import EmbeddingRequest, EngineStats, Event, ModelInfo, Request

MAX_FRAME = 256 * 1024 * 1024
_LENGTH = struct.Struct(">I")
EVENTS_TAG = 12


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """`InfernoError.to_dict`, positional."""

    code: str
    message: str
    details: dict[str, Any]


# ---- to the worker ----------------------------------------------------------------------------------------------


class Submit(msgspec.Struct, array_like=True, frozen=True, tag=1):
    call: int
    request: Request


class Embed(msgspec.Struct, array_like=True, frozen=True, tag=2):
    call: int
    request: EmbeddingRequest


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag=3):
    sequence_ids: list[int]


class AskStats(msgspec.Struct, array_like=True, frozen=True, tag=4):
    call: int


class Close(msgspec.Struct, array_like=True, frozen=True, tag=5):
    grace_s: float


ToWorker: TypeAlias = Submit | Embed | Cancel | AskStats | Close


# ---- from the worker --------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """The model is loaded."""

    info: ModelInfo
    context_size: int
    memory_bytes: int


class LoadFailed(msgspec.Struct, array_like=True, frozen=True, tag=11):
    error: Failure


class Events(msgspec.Struct, array_like=True, frozen=True, tag=EVENTS_TAG):
    """All that one or more engine steps produced."""

    events: list[Event]


class Accepted(msgspec.Struct, array_like=True, frozen=True, tag=13):
    call: int
    sequence_ids: list[int]


class Refused(msgspec.Struct, array_like=True, frozen=True, tag=14):
    call: int
    error: Failure


class Stats(msgspec.Struct, array_like=True, frozen=True, tag=15):
    call: int
    stats: EngineStats


FromWorker: TypeAlias = Ready | LoadFailed | Events | Accepted | Refused | Stats

_encoder = msgspec.msgpack.Encoder()


def encode(message: Any) -> bytes:
    """One frame. Raises OverflowError when the message is larger than MAX_FRAME."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise OverflowError("The message is too large for a frame.")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Bytes in, message bodies out. Raises ValueError on a length above MAX_FRAME."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        bodies = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME:
                raise ValueError("A frame is too long.")
            end = start + _LENGTH.size + length
            if end > len(self._buffer):
                break
            bodies.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        del self._buffer[:start]
        return bodies


decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
