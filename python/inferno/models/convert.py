"""A Hugging Face model, a directory with safetensors, as a GGUF file."""

from __future__ import annotations

import json
import math
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from inferno import errors
from inferno.engine.child import Progress, reduced_environment
from inferno.models import preflight
from inferno.models.converter import Converter
from inferno.models.install import check_space, check_target, disk_errors, install, locked
from inferno.models.manifest import sha256

#: The converter's types -> bytes of a weight, at most.
TYPES = {"auto": 2.0, "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}

_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
_MAX_HEADER = 100 << 20  # the format's own limit
_PERCENT = re.compile(r"Writing:\s+(\d+)%")


def check(directory: Path, target: Path, kind: str, *, force: bool = False, trust_code: bool = False) -> None:
    """Everything that can be known before the work: raises NotFound, InvalidRequest, ServiceUnavailable (no room)."""
    if kind not in TYPES:
        raise errors.InvalidRequest(f"There is no type {kind}. Known types: {', '.join(TYPES)}.", field="type")
    if not directory.is_dir():
        raise errors.NotFound(f"There is no directory {directory.name!r}.")
    _check_config(directory)
    if not any((directory / name).exists() for name in _TOKENIZERS):
        raise errors.InvalidRequest(f"The directory has no tokenizer: none of {', '.join(_TOKENIZERS)}.", field="model")
    if not trust_code and (code := sorted(path.name for path in directory.glob("*.py"))):
        raise errors.InvalidRequest(
            f"The directory has program code ({', '.join(code[:3])}) that the converter may run; --trust-code lets it.",
            field="trust_code",
        )
    check_target(target, force=force)
    n_weights = sum(_weights(path) for path in _weight_files(directory))
    check_space(target.parent, int(n_weights * TYPES[kind]) + preflight.MAX_METADATA)


def convert(
    directory: Path,
    target: Path,
    kind: str,
    models_dir: Path,
    converter: Converter,
    *,
    force: bool = False,
    trust_code: bool = False,
    progress: Progress = lambda done, total: None,
) -> str:
    """Write `target` and return its sha256. It appears when it is complete and sound; an interruption leaves nothing.

    `progress` gets (percent, 100). Raises what `check` raises, and InvalidRequest with the converter's own last words.
    """
    check(directory, target, kind, force=force, trust_code=trust_code)
    with (
        disk_errors(),
        locked(target),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as temporary,
    ):
        made = Path(temporary) / target.name
        _run(converter, [str(directory.resolve()), "--outfile", str(made), "--outtype", kind], progress)
        digest = sha256(made)
        install({made: target}, {target: digest}, models_dir)
        return digest


def _run(converter: Converter, arguments: list[str], progress: Progress) -> None:
    # What it needs is in the directory; it is not to ask a hub.
    environment = reduced_environment() | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with subprocess.Popen(
        [str(converter.python), str(converter.script), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,  # Ctrl-C is ours to pass on
    ) as process:
        assert process.stderr is not None
        try:
            last = _last_words(process.stderr, progress)
            failed = process.wait() != 0
        finally:
            process.kill()
    if failed:
        raise errors.InvalidRequest(f"The converter failed: {last}", field="model")


def _last_words(lines: IO[str], progress: Progress) -> str:
    last = "it says nothing"
    for line in lines:
        if match := _PERCENT.search(line):
            progress(int(match[1]), 100)
        elif line.strip():
            last = line.strip()
    return last


def _check_config(directory: Path) -> None:
    try:
        architectures = json.loads((directory / "config.json").read_text()).get("architectures")
    except FileNotFoundError:
        raise errors.InvalidRequest("The directory has no config.json.", field="model") from None
    except (OSError, ValueError, AttributeError):
        raise errors.InvalidRequest("The directory's config.json cannot be read.", field="model") from None
    if not architectures:
        raise errors.InvalidRequest("The directory's config.json names no architecture.", field="model")


def _weight_files(directory: Path) -> list[Path]:
    """Those that the index names, all of which must be there; without an index all that are there."""
    files = sorted(directory.glob("*.safetensors"))
    if (directory / _INDEX).exists():
        names = sorted(set(_json_object(directory / _INDEX).get("weight_map", {}).values()))
        files = [directory / str(name) for name in names]
        if absent := [path.name for path in files if not path.exists()]:
            raise errors.InvalidRequest(
                f"Of its {len(files)} files there is no {', '.join(absent[:3])}.", field="model"
            )
    if not files:
        raise errors.InvalidRequest("The directory has no safetensors files.", field="model")
    return files


def _weights(path: Path) -> int:
    """How many there are, by the file's header."""
    return sum(math.prod(shape) for shape in _shapes(path))


def _shapes(path: Path) -> Iterator[list[int]]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, _MAX_HEADER)))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield [int(n) for n in tensor["shape"]]
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError):
        raise errors.InvalidRequest(f"{path.name} is no safetensors file.", field="model") from None


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("weight_map"), dict):
        raise errors.InvalidRequest(f"{path.name} cannot be read.", field="model")
    return content
