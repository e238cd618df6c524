"""Putting model files where they belong: room for them, one at a time, looked over, durable, and in the manifest."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from inferno import errors
from inferno.models import preflight
from inferno.models.manifest import Manifest

SPARE_BYTES = 64 << 20


def install(staged: Mapping[Path, Path], hashes: Mapping[Path, str], models_dir: Path) -> None:
    """Move `staged` (file -> target, on one file system), parts of one model in order, and record `hashes` of the
    targets.

    Durable before it is visible: a power cut leaves the old files or whole new ones, and of a split model the first
    part, without which nothing is listed, comes last. Raises InvalidRequest for what is no sound model.
    """
    preflight.check(next(iter(staged)))
    manifest = Manifest(models_dir)
    manifest.hashes()  # one that cannot be read is told before anything is moved
    for file, target in reversed(list(staged.items())):
        _sync(file)
        file.replace(target)
        _sync(target.parent)
    manifest.record(hashes)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_target(target: Path, *, force: bool) -> None:
    """Raises InvalidRequest unless a model may be written to `target`, ServiceUnavailable when its directory cannot be
    made."""
    if target.suffix != ".gguf":
        raise errors.InvalidRequest("The output must be a model's id or a file that ends in .gguf.", field="output")
    if target.exists() and not force:
        raise errors.InvalidRequest(f"{target.name} is there already; --force replaces it.", field="output")
    with disk_errors():
        target.parent.mkdir(parents=True, exist_ok=True)


def check_space(directory: Path, needed: int) -> None:
    """Raises ServiceUnavailable when the disk of `directory` has no room for `needed` bytes and some to spare."""
    free = shutil.disk_usage(directory).free
    if free < needed + SPARE_BYTES:
        raise errors.ServiceUnavailable(f"The disk has {free} bytes free; {needed + SPARE_BYTES} are needed.")


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """One writer of a file at a time; another one at once is told so."""
    path = target.parent / f".{target.name}.lock"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(path.stat(), os.fstat(lock.fileno()))
        except OSError:
            ours = False
        if not ours:  # or its last holder has just taken it away
            raise errors.ServiceUnavailable(f"{target.stem} is being pulled or made already.")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """A full disk, a directory that cannot be written and the like, as ServiceUnavailable."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise errors.ServiceUnavailable(f"The model could not be stored: {reason}.") from None
