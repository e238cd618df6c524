"""The sha256 of each file in the models directory, in a file there that `sha256sum -c` reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import msgspec
from filelock import FileLock

from inferno import errors

NAME = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")

Status: TypeAlias = Literal["ok", "changed", "missing", "unrecorded"]


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """`file` is relative to the models directory when it is in it; `sha256` is of what is there, "" when nothing is."""

    file: str
    status: Status
    sha256: str = ""


class Manifest:
    """Read anew on every call; written whole or not at all, by one process at a time."""

    def __init__(self, models_dir: Path) -> None:
        self._root = models_dir
        self._path = models_dir / NAME
        self._lock = FileLock(models_dir / f".{NAME}.lock")

    def hashes(self) -> dict[str, str]:
        """File, relative to the models directory -> sha256. Raises InvalidRequest for a line that is none."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError):
            raise errors.InvalidRequest(f"{NAME} cannot be read.") from None
        return dict(_parsed(number, line) for number, line in enumerate(lines, 1) if line)

    def record(self, hashes: Mapping[Path, str]) -> None:
        """Files outside of the models directory are passed over."""
        named = {name: digest for path, digest in hashes.items() if (name := self.name_of(path)) is not None}
        if named:
            with self._lock:
                self._write(self.hashes() | named)

    def forget(self, paths: Iterable[Path]) -> None:
        gone = {self.name_of(path) for path in paths}
        if self._path.exists():
            with self._lock:
                self._write({name: digest for name, digest in self.hashes().items() if name not in gone})

    def paths(self) -> list[Path]:
        """Of all files that have a hash."""
        return [self._root / name for name in self.hashes()]

    def verify(self, paths: Iterable[Path], on_file: Callable[[str], object] = lambda name: None) -> list[Verified]:
        """What `paths` are, compared with what was recorded; `on_file` is told before each is read."""
        hashes = self.hashes()
        found = []
        for path in paths:
            name = self.name_of(path) or str(path)
            on_file(name)
            found.append(_verified(path, name, hashes.get(name)))
        return found

    def name_of(self, path: Path) -> str | None:
        """None for a file outside of the models directory. Links stay what they are called here."""
        parent, root = path.parent.resolve(), self._root.resolve()
        return (parent / path.name).relative_to(root).as_posix() if parent.is_relative_to(root) else None

    def _write(self, hashes: Mapping[str, str]) -> None:
        if not hashes:
            return self._path.unlink(missing_ok=True)
        temporary = self._path.with_name(f".{NAME}.new")
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())))
        temporary.replace(self._path)
        return None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(path: Path, name: str, recorded: str | None) -> Verified:
    try:
        digest = sha256(path)
    except OSError:
        return Verified(file=name, status="missing")
    if recorded is None:
        return Verified(file=name, status="unrecorded", sha256=digest)
    return Verified(file=name, status="ok" if digest == recorded else "changed", sha256=digest)


def _parsed(number: int, line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None or PurePosixPath(match[2]).is_absolute() or ".." in PurePosixPath(match[2]).parts:
        raise errors.InvalidRequest(f"{NAME}, line {number}, is not a sha256 and a file in this directory.")
    return match[2], match[1]
