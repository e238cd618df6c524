"""Model ids and the files behind them.

A file `name.gguf` in the models directory is the model `name`; `org/name.gguf` is `org/name`. An alias is a further
id, written by the operator, for a file (relative to the models directory, or anywhere by absolute path) or for
another id. An alias wins over a file of the same name. The parts `name-00001-of-0000N.gguf` are one model, `name`.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from inferno import _core, errors
from inferno.models import preflight
from inferno.models.parts import first_part, parts_of, place, without_part
from inferno.request import ModelInfo

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,127}")
_MAX_DEPTH = 3


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One available model. `created` is the file's modification time in Unix seconds; of a split model `path` is the
    first part, and `size_bytes` the size of all."""

    id: str
    name: str
    path: Path
    size_bytes: int
    created: int
    info: ModelInfo


def is_valid_id(model_id: str) -> bool:
    """True for one to three segments of letters, digits and . _ : + @ - that begin with a letter or digit."""
    segments = model_id.split("/")
    return len(segments) <= _MAX_DEPTH and all(_SEGMENT.fullmatch(segment) for segment in segments)


_Stamp = tuple[tuple[int, int], ...]


class Registry:
    """Looks at the directory anew on every call, so that a new file is there at once; headers are cached."""

    def __init__(self, models_dir: Path, aliases: Mapping[str, str] | None = None) -> None:
        self.models_dir = models_dir
        self.aliases = dict(aliases or {})
        self._infos: dict[Path, tuple[_Stamp, ModelInfo | errors.InvalidRequest]] = {}

    def entries(self) -> list[ModelEntry]:
        """All usable models, by id."""
        found = []
        files = self.scan()
        for model_id in sorted({*self.aliases, *files}):
            with contextlib.suppress(errors.InvalidRequest):
                if entry := self._entry(model_id, files):
                    found.append(entry)
        return found

    def ids(self) -> list[str]:
        return sorted({*self.aliases, *self.scan()})

    def get(self, model_id: str) -> ModelEntry:
        """Raises ModelNotFound for an unknown id, InvalidRequest for a file that is no model."""
        if entry := self._entry(model_id, self.scan()):
            return entry
        raise self._not_found(model_id)

    def _not_found(self, model_id: str) -> errors.ModelNotFound:
        shown = model_id if len(model_id) <= 128 and model_id.isprintable() else "?"
        available = [entry.id for entry in self.entries()]
        return errors.ModelNotFound(f"Model '{shown}' not found", available_models=available)

    def path(self, model_id: str) -> Path:
        """The file behind an id, sound or not; of a split model one that is there. Raises ModelNotFound."""
        if path := self._find(model_id, self.scan()):
            return path
        raise self._not_found(model_id)

    def problems(self) -> dict[str, str]:
        """Id -> why its file is not usable."""
        root = self.models_dir.resolve()
        found = {self.id_of(path): why for path in self._candidates(root) if (why := _refusal(path, root)) is not None}
        files = self.scan()
        for model_id in sorted({*self.aliases, *files}):
            try:
                if self._entry(model_id, files) is None:
                    found[model_id] = "There is no such file."
            except errors.InvalidRequest as error:
                found[model_id] = error.message
        return found

    # ---- inside -------------------------------------------------------------------------------------------------

    def files(self) -> Iterator[Path]:
        """The models' files in the models directory (of a split model, the first that is there)."""
        root = self.models_dir.resolve()
        return (path for path in self._candidates(root) if _refusal(path, root) is None)

    def _candidates(self, root: Path) -> Iterator[Path]:
        for depth in range(_MAX_DEPTH):
            for path in sorted(root.glob("*/" * depth + "*.gguf")):
                is_hidden = "/." in f"/{path.relative_to(root).as_posix()}"
                earlier = parts_of(path)[: place(path)[0] - 1]
                if not is_hidden and not any(part.exists() for part in earlier):
                    yield path

    def id_of(self, path: Path) -> str:
        """The id of one of `files()`."""
        return _id_of(path, self.models_dir.resolve())

    def scan(self) -> dict[str, Path]:
        """Id -> one of `files()`. A model that is complete is preferred to parts that are left of another."""
        found: dict[str, Path] = {}
        for path in self.files():
            model_id = self.id_of(path)
            if model_id not in found or all(part.exists() for part in parts_of(path)):
                found[model_id] = path
        return found

    def _find(self, model_id: str, files: Mapping[str, Path], seen: frozenset[str] = frozenset()) -> Path | None:
        if model_id in self.aliases and model_id not in seen:
            target = self.aliases[model_id]
            if target.endswith(".gguf"):
                return first_part(self.models_dir / Path(target).expanduser())
            return self._find(target, files, seen | {model_id})
        return files.get(model_id)

    def _entry(self, model_id: str, files: Mapping[str, Path]) -> ModelEntry | None:
        """None when there is no such file; raises InvalidRequest when it is no model."""
        path = self._find(model_id, files)
        stamp = _stamp(path) if path else ()
        if path is None or not stamp:
            return None
        info = self._info(path, stamp)
        return ModelEntry(
            id=model_id,
            name=info.name or _prettified(model_id),
            path=path,
            size_bytes=sum(size for _, size in stamp),
            created=stamp[0][0] // 10**9,
            info=info,
        )

    def _info(self, path: Path, stamp: _Stamp) -> ModelInfo:
        known = self._infos.get(path)
        if known is None or known[0] != stamp:
            known = self._infos[path] = (stamp, _inspected(path))
        info = known[1]
        if isinstance(info, errors.InvalidRequest):
            raise errors.InvalidRequest(info.message, **info.details)
        return info


def _id_of(path: Path, root: Path) -> str:
    return without_part(path.relative_to(root).with_suffix("").as_posix())


def _refusal(path: Path, root: Path) -> str | None:
    """None for a regular file that does not lead out of the models directory, under a valid id; else what it is."""
    try:
        real = path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError):
        return "It leads nowhere."
    if not real.is_relative_to(root):
        return "It leads out of the models directory; give it an alias instead."
    if not regular:
        return "It is not a file."
    return None if is_valid_id(_id_of(path, root)) else "Its name does not make an id."


def _inspected(path: Path) -> ModelInfo | errors.InvalidRequest:
    try:
        preflight.check(path)
        return msgspec.convert(_core.inspect_model(str(path)), ModelInfo)
    except errors.InvalidRequest as error:
        return error


def _stamp(path: Path) -> _Stamp:
    """(modification time in ns, size) of each part that is there: what must change when the model does."""
    found = []
    for part in parts_of(path):
        with contextlib.suppress(OSError):
            status = part.stat()
            found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def _prettified(model_id: str) -> str:
    words = re.split(r"[-_\s]+", model_id.rpartition("/")[2])
    return " ".join(word if any(c.isdigit() for c in word) else word.capitalize() for word in words)
