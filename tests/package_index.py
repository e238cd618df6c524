"""A package index on loopback, packages to put there, and virtual environments to install them into."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import io
import json
import os
import subprocess
import threading
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pip

PACKAGE = "inferno-sample"
PART = "inferno-part"
_JSON = "application/vnd.pypi.simple.v1+json"


def wheel(name: str, version: str, files: dict[str, str], requires: str = "", scripts: str = "") -> tuple[str, bytes]:
    """A wheel's file name and content (PEP 427)."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = f"{stem}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        **files,
        f"{about}/METADATA": head + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{scripts}\n",
    }
    files[f"{about}/RECORD"] = "".join(_recorded(*item) for item in files.items()) + f"{about}/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{stem}-py3-none-any.whl", out.getvalue()


def _recorded(path: str, text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(text)}\n"


def sample(
    version: str, *, says: str = "", core: str = "", requires: str = "", scripts: bool = True
) -> dict[str, bytes]:
    """A stand-in for Inferno: it `says` another version than it is, its engine's code is `core`."""
    command = f"def main():\n    print('inferno, version {says or version}')\n"
    files = {
        "inferno/__init__.py": f"__version__ = {says or version!r}\n",
        "inferno/_core.py": core,
        "inferno/command.py": command,
    }
    return dict([wheel(PACKAGE, version, files, requires, "inferno = inferno.command:main" if scripts else "")])


def part(version: str) -> dict[str, bytes]:
    """What a stand-in may depend on."""
    return dict([wheel(PART, version, {"inferno_part.py": ""})])


@dataclass
class PackageIndex:
    """Serves `files` by their project. `page` replaces what it says of projects by a content type and a body;
    a request for a path that contains `held` waits until `release` is set."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    speaks_json: bool = False
    page: tuple[str, bytes] | None = None
    held: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)

    def project(self, name: str) -> tuple[str, bytes]:
        """The project's page: JSON (PEP 691) or HTML (PEP 503), with PEP 592's marks."""
        files = [file for file in self.files if file.startswith(name.replace("-", "_") + "-")]
        if self.speaks_json:
            rows = [
                {"filename": f, "url": f"/files/{f}", "hashes": self._hashes(f), "yanked": f in self.withdrawn}
                for f in files
            ]
            meta = {"api-version": "1.0"}
            return _JSON, json.dumps({"meta": meta, "name": name, "files": rows}).encode()
        body = "".join(map(self._link, files))
        return "text/html", f"<!DOCTYPE html><html><body>{body}</body></html>".encode()

    def _link(self, file: str) -> str:
        mark = " data-yanked='broken'" if file in self.withdrawn else ""
        digest = self._hashes(file)["sha256"]
        return f'<a href="/files/{file}#sha256={digest}"{mark}>{html.escape(file)}</a>'

    def _hashes(self, file: str) -> dict[str, str]:
        return {"sha256": hashlib.sha256(self.files[file]).hexdigest()}


def _handler(index: PackageIndex) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requests.append(self.path)
            if index.held and index.held in self.path:
                index.reached.set()
                index.release.wait(60)
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "files" and name in index.files:
                return self._answer(200, "application/zip", index.files[name])
            if kind == "simple":
                return self._answer(200, *(index.page or index.project(name)))
            self._answer(404, "text/plain", b"")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            with contextlib.suppress(OSError):  # who asked may have been ended
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[PackageIndex]:
    index = PackageIndex()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(index)) as server:
        index.url = f"http://127.0.0.1:{server.server_port}/simple"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield index
        finally:
            index.release.set()
            server.shutdown()
            thread.join()


def environment(directory: Path, *, with_pip: bool = True) -> Path:
    """The Python of a new virtual environment, which borrows our pip and sees nothing else of ours."""
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    if with_pip:
        borrowed = directory / "borrowed"
        borrowed.mkdir()
        (borrowed / "pip").symlink_to(Path(pip.__file__).parent, target_is_directory=True)
        site_packages = next((directory / "lib").glob("python*/site-packages"))
        (site_packages / "borrowed.pth").write_text(f"{borrowed}\n")
    return python


def environ(**more: str) -> dict[str, str]:
    """This process's environment without the configuration of pip and Inferno that it may have."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "INFERNO_")) and "proxy" not in k.lower()}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", **more}


def put(python: Path, index: PackageIndex, *requirements: str) -> None:
    """Install from the index, as a person would."""
    command = [str(python), "-I", "-m", "pip", "install", "--quiet", "--index-url", index.url, *requirements]
    subprocess.run(command, env=environ(), check=True, timeout=120)
