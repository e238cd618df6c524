"""What upgrades were done, one JSON object a line. A line is only ever added, so that a crash loses at most its own."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from inferno import errors

#: The oldest lines beyond this number are dropped.
MOST_LINES = 200


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`action` is install or rollback, from version `previous` to `version`.

    `outcome` is "started" until it is known: "done"; "failed", where nothing was changed; "rolled back", where the
    new version did not work and the previous one does again; "broken", where neither works. `packages` are the
    versions before: once it is done, of the distributions that it changed; until then, and when it is broken, of all.
    """

    time: str
    package: str
    action: str
    previous: str
    version: str
    outcome: str
    detail: str = ""
    packages: dict[str, str] = {}

    @property
    def is_open(self) -> bool:
        """Begun, and the end is not known."""
        return self.outcome == "started"

    @property
    def left_a_mess(self) -> bool:
        """Its environment is in no state that is known to work."""
        return self.outcome in ("started", "broken")


def now() -> str:
    """ISO 8601 with Z and whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class History:
    """The file. Whoever adds to it holds the environment's lock."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "history.jsonl"

    def add(self, record: Record) -> None:
        """On the disk when this returns. Raises ServiceUnavailable."""
        try:
            self._add(record)
        except OSError as error:
            raise errors.ServiceUnavailable(f"The history cannot be kept: {error.strerror}.") from None

    def _add(self, record: Record) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = self._lines()
        if len(lines) >= MOST_LINES:
            replace(self._path, b"".join(line + b"\n" for line in lines[1 - MOST_LINES :]))
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            # A line that a crash cut off must not take this one with it.
            torn = file.seek(0, os.SEEK_END) > 0 and os.pread(descriptor, 1, file.tell() - 1) != b"\n"
            file.write(b"\n" * torn + msgspec.json.encode(record) + b"\n")
            os.fsync(descriptor)

    def read(self) -> tuple[list[Record], int]:
        """The records, oldest first, each once with its latest outcome; and how many lines are not readable.

        Raises ServiceUnavailable.
        """
        records: list[Record] = []
        unreadable = 0
        try:
            lines = self._lines()
        except OSError as error:
            raise errors.ServiceUnavailable(f"The history cannot be read: {error.strerror}.") from None
        for line in lines:
            try:
                record = msgspec.json.decode(line, type=Record)
            except msgspec.MsgspecError:
                unreadable += 1
                continue
            if records and records[-1].is_open and not record.is_open:
                records.pop()  # this one is its end
            records.append(record)
        return records, unreadable

    def _lines(self) -> list[bytes]:
        try:
            return [line for line in self._path.read_bytes().split(b"\n") if line]
        except FileNotFoundError:
            return []


def replace(path: Path, content: bytes) -> None:
    """Put `content` at `path` (mode 0600); readers see the old or the new. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fsync(descriptor)
    os.replace(temporary, path)
