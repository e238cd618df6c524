"""Reading HTTP/1.1 responses from bytes as they arrive: no socket, no clock."""

from __future__ import annotations

_EVENT_END = b"\n\n"


class Response:
    """One response. `feed` takes bytes in pieces of any size and returns the server-sent events that they completed;
    a body that is not an event stream gathers in `body`. `complete` says that nothing more belongs to it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.complete = False
        self._raw = bytearray()
        self._left: int | None = None  # bytes of the body, or of the current chunk, still to come; None: not known
        self._chunked = False

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get(b"content-type", b"").startswith(b"text/event-stream")

    @property
    def has_begun(self) -> bool:
        return bool(self.status or self._raw)

    def feed(self, data: bytes) -> list[bytes]:
        self._raw += data
        if not self.status and not self._read_head():
            return []
        if self._chunked:
            self._read_chunks()
        else:
            self._read_plain()
        return self._take_events() if self.is_event_stream else []

    def close(self) -> None:
        """The connection ended, which is the end of a body whose length was not told."""
        self.complete = self.complete or bool(self.status and not self._chunked and self._left is None)

    def _read_head(self) -> bool:
        head, found, rest = self._raw.partition(b"\r\n\r\n")
        if not found:
            return False
        first, *lines = bytes(head).split(b"\r\n")
        self.status = int(first.split(b" ", 2)[1])
        for line in lines:
            name, _, value = line.partition(b":")
            self.headers[name.strip().lower()] = value.strip()
        self._chunked = self.headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        if not self._chunked and b"content-length" in self.headers:
            self._left = int(self.headers[b"content-length"])
        self._raw = rest
        return True

    def _read_plain(self) -> None:
        taken = len(self._raw) if self._left is None else min(self._left, len(self._raw))
        self.body += self._raw[:taken]
        del self._raw[:taken]
        if self._left is not None:
            self._left -= taken
            self.complete = self._left == 0

    def _read_chunks(self) -> None:
        while not self.complete and (self._left or self._read_chunk_size()):
            assert self._left is not None
            if len(self._raw) < self._left:
                return
            self.body += self._raw[: self._left - 2]  # the chunk's own line end is not part of the body
            del self._raw[: self._left]
            self.complete = self._left == 2
            self._left = None

    def _read_chunk_size(self) -> bool:
        """Sets what is left of the next chunk, line end included; False when its size has not arrived."""
        line, found, rest = self._raw.partition(b"\r\n")
        if found:
            self._left = int(line.partition(b";")[0], 16) + 2
            self._raw = rest
        return bool(found)

    def _take_events(self) -> list[bytes]:
        *events, rest = bytes(self.body).replace(b"\r\n", b"\n").split(_EVENT_END)
        self.body = bytearray(rest)
        return [data for event in events if (data := _data(event)) is not None]


def _data(event: bytes) -> bytes | None:
    """The data of an event; None of one that has none, such as a comment that keeps the connection open."""
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
