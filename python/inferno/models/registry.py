"""Model ids and the files behind them.

A file `name.gguf` in the models directory is the model `name`; `org/name.gguf` is `org/name`. An alias is a further
id, written by the operator, for a file (relative to the models directory, or anywhere by absolute path) or for
another id. An alias wins over a file of the same name.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from inferno import _core, errors
from inferno.models import preflight
from inferno.request import ModelInfo

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,127}")
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})$")
_MAX_DEPTH = 3


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One available model. `created` is the file's modification time in Unix seconds."""

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


class Registry:
    """Looks at the directory anew on every call, so that a new file is there at once; headers are cached."""

    def __init__(self, models_dir: Path, aliases: Mapping[str, str] | None = None) -> None:
        self.models_dir = models_dir
        self.aliases = dict(aliases or {})
        self._infos: dict[tuple[Path, int, int], ModelInfo | errors.InvalidRequest] = {}

    def entries(self) -> list[ModelEntry]:
        """All usable models, by id."""
        found = [self._entry_or_none(model_id) for model_id in self.ids()]
        return [entry for entry in found if entry is not None]

    def ids(self) -> list[str]:
        return sorted({*self.aliases, *(self.id_of(path) for path in self.files())})

    def get(self, model_id: str) -> ModelEntry:
        """Raises ModelNotFound for an unknown id, InvalidRequest for a file that is no model."""
        return self._entry(model_id, self._resolve(model_id))

    def problems(self) -> dict[str, str]:
        """Id -> why its file is not usable."""
        found: dict[str, str] = {}
        for model_id in self.ids():
            try:
                self.get(model_id)
            except errors.InfernoError as error:
                found[model_id] = error.message
        return found

    # ---- inside -------------------------------------------------------------------------------------------------

    def _entry_or_none(self, model_id: str) -> ModelEntry | None:
        try:
            return self.get(model_id)
        except errors.InfernoError:
            return None

    def files(self) -> Iterator[Path]:
        """The models' files in the models directory (of a split model, its first)."""
        root = self.models_dir.resolve()
        for depth in range(_MAX_DEPTH):
            for path in sorted(root.glob("*/" * depth + "*.gguf")):
                split = _SPLIT.search(path.stem)
                if (split is None or int(split[1]) == 1) and self._is_inside(path, root):
                    yield path

    def _is_inside(self, path: Path, root: Path) -> bool:
        """A regular file that does not lead out of the models directory, under a valid id."""
        try:
            real = path.resolve(strict=True)
            regular = stat.S_ISREG(real.stat().st_mode)
        except (OSError, RuntimeError):
            return False
        return regular and real.is_relative_to(root) and is_valid_id(self.id_of(path))

    def id_of(self, path: Path) -> str:
        """The id of one of `files()`."""
        relative = path.relative_to(self.models_dir.resolve()).with_suffix("").as_posix()
        return _SPLIT.sub("", relative)

    def _resolve(self, model_id: str, seen: frozenset[str] = frozenset()) -> Path:
        if model_id in self.aliases and model_id not in seen:
            target = self.aliases[model_id]
            if target.endswith(".gguf"):
                return self.models_dir / Path(target).expanduser()
            return self._resolve(target, seen | {model_id})
        if is_valid_id(model_id):
            for path in self.files():
                if self.id_of(path) == model_id:
                    return path
        shown = model_id if len(model_id) <= 128 and model_id.isprintable() else "?"
        raise errors.ModelNotFound(f"Model '{shown}' not found", available_models=self.ids())

    def _entry(self, model_id: str, path: Path) -> ModelEntry:
        try:
            status = path.stat()
        except OSError:
            raise errors.ModelNotFound(f"Model '{model_id}' not found", available_models=self.ids()) from None
        info = self._info(path, status.st_mtime_ns, status.st_size)
        return ModelEntry(
            id=model_id,
            name=info.name or _prettified(model_id),
            path=path,
            size_bytes=status.st_size,
            created=int(status.st_mtime),
            info=info,
        )

    def _info(self, path: Path, mtime_ns: int, size: int) -> ModelInfo:
        key = (path, mtime_ns, size)
        if key not in self._infos:
            try:
                preflight.check(path)
                self._infos[key] = msgspec.convert(_core.inspect_model(str(path)), ModelInfo)
            except errors.InvalidRequest as error:
                self._infos[key] = error
        info = self._infos[key]
        if isinstance(info, errors.InvalidRequest):
            raise errors.InvalidRequest(info.message, **info.details)
        return info


def _prettified(model_id: str) -> str:
    words = re.split(r"[-_\s]+", model_id.rpartition("/")[2])
    return " ".join(word if any(c.isdigit() for c in word) else word.capitalize() for word in words)
