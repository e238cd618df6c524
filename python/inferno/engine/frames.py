"""What a server process and its workers say to each other: MessagePack frames on a socket pair.

A frame is a 4-byte big-endian length and one message. A message is an array whose first item tells its kind.
Calls are numbered by the caller and answered in any order, each by one of Accepted, Refused and Stats.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from inferno import errors
from inferno.request import EmbeddingRequest, EngineStats, Event, ModelInfo, Placement, Request

#: Longest message, in bytes. A longer one is refused by the sender and ends the connection at the receiver.
MAX_FRAME = 64 * 1024 * 1024
#: Events in one message at most: even with the largest embeddings a frame of this many stays below MAX_FRAME.
MAX_EVENTS = 1024

_LENGTH = struct.Struct(">I")


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """`InfernoError.to_dict`, by position."""

    code: str
    message: str
    details: dict[str, Any] = {}

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What the other side is told; an unexpected exception says nothing about itself."""
        if isinstance(error, errors.InfernoError):
            return cls(error.code, error.message, error.details)
        return cls("INFERENCE_FAILED", "The engine failed.")

    def exception(self) -> errors.InfernoError:
        return errors.from_dict({"code": self.code, "message": self.message, "details": self.details})


# ---- to the worker ----


class Load(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """The first message: load this file."""

    path: str
    options: dict[str, Any]


class Submit(msgspec.Struct, array_like=True, frozen=True, tag=1):
    call: int
    request: Request


class Embed(msgspec.Struct, array_like=True, frozen=True, tag=2):
    call: int
    request: EmbeddingRequest
    first: int


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag=3):
    sequence_ids: list[int]


class AskStats(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """Also asked to see whether the worker is alive."""

    call: int


class Close(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """Let accepted work run for up to `grace_s` seconds, then close the socket and exit."""

    grace_s: float


class Withdraw(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """Who made this call waits no longer: Refused when nothing has been done for it yet, else its own answer."""

    call: int


ToWorker: TypeAlias = Load | Submit | Embed | Cancel | AskStats | Close | Withdraw


# ---- from the worker ----


class Progress(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """Fraction of the model that is loaded, 0 to 1."""

    fraction: float


class Ready(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """The model is loaded."""

    info: ModelInfo
    context_size: int
    memory_bytes: int
    placement: Placement


class LoadFailed(msgspec.Struct, array_like=True, frozen=True, tag=12):
    error: Failure


class Events(msgspec.Struct, array_like=True, frozen=True, tag=13):
    """What one engine step, or several, had to say."""

    events: list[Event]


class Accepted(msgspec.Struct, array_like=True, frozen=True, tag=14):
    """`prompt_tokens` counts each prompt once, however many sequences continue it."""

    call: int
    sequence_ids: list[int]
    prompt_tokens: int


class Refused(msgspec.Struct, array_like=True, frozen=True, tag=15):
    call: int
    error: Failure


class Stats(msgspec.Struct, array_like=True, frozen=True, tag=16):
    call: int
    stats: EngineStats


FromWorker: TypeAlias = Progress | Ready | LoadFailed | Events | Accepted | Refused | Stats

decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
_encoder = msgspec.msgpack.Encoder()


def encode(message: ToWorker | FromWorker | tuple[Any, ...]) -> bytearray:
    """One frame. Raises PayloadTooLarge when the message is longer than MAX_FRAME."""
    frame = bytearray(_LENGTH.size)
    _encoder.encode_into(message, frame, _LENGTH.size)
    length = len(frame) - _LENGTH.size
    if length > MAX_FRAME:
        raise errors.PayloadTooLarge("The request is too large.")
    _LENGTH.pack_into(frame, 0, length)
    return frame


def encode_events(events: list[tuple[Any, ...]]) -> Iterator[bytearray]:
    """Frames of the engine's own tuples, which are laid out as Event is: no Event is ever made of them."""
    for start in range(0, len(events), MAX_EVENTS):
        yield encode((Events.__struct_config__.tag, events[start : start + MAX_EVENTS]))


class FrameReader:
    """Bytes in, message bodies out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """The bodies that `data` completes; each is valid until the next one. Raises ValueError on a length above
        MAX_FRAME. Requires: the iterator is used up before the next call."""
        self._buffer += data
        start = 0
        with memoryview(self._buffer) as view:
            while len(view) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, start)
                if length > MAX_FRAME:
                    raise ValueError("A frame is too long.")
                end = start + _LENGTH.size + length
                if end > len(view):
                    break
                with view[start + _LENGTH.size : end] as body:
                    yield body
                start = end
        del self._buffer[:start]
