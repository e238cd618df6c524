"""Split models: `name-00001-of-0000N.gguf` up to `name-0000N-of-0000N.gguf` are one model, `name`."""

from __future__ import annotations

import re
from pathlib import Path

MAX_PARTS = 1024

_PART = re.compile(r"-(\d{5})-of-(\d{5})$")


def place(path: Path) -> tuple[int, int]:
    """(number, count) of the part that `path` is by its name; (1, 1) for a file that is no part."""
    match = _PART.search(path.stem) if path.suffix == ".gguf" else None
    return (int(match[1]), int(match[2])) if match and _is_sound(match) else (1, 1)


def parts_of(path: Path) -> list[Path]:
    """All files of the model that `path` is the file or any part of, whether they are there or not."""
    _, count = place(path)
    stem = without_part(path.stem)
    if count == 1:
        return [path]
    return [path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def first_part(path: Path) -> Path:
    """The file that the engine opens."""
    return parts_of(path)[0]


def without_part(stem: str) -> str:
    """`name` of `name-00001-of-00003`."""
    match = _PART.search(stem)
    return stem[: match.start()] if match and _is_sound(match) else stem


def _is_sound(match: re.Match[str]) -> bool:
    return 1 <= int(match[1]) <= int(match[2]) <= MAX_PARTS
