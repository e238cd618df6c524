import hashlib
import subprocess
from pathlib import Path

import pytest
from inferno import errors
from inferno.models.manifest import NAME, Manifest


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of two files, one in a directory."""
    for name, data in (("a.gguf", b"a"), ("org/b.gguf", b"b")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    manifest = Manifest(tmp_path)
    manifest.record({tmp_path / "a.gguf": _sum(b"a"), tmp_path / "org" / "b.gguf": _sum(b"b")})
    return manifest


def test_sha256sum_reads_it(manifest: Manifest, tmp_path: Path) -> None:
    checked = subprocess.run(["sha256sum", "-c", NAME], cwd=tmp_path, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "a.gguf: OK\norg/b.gguf: OK\n")


def test_it_reads_what_sha256sum_writes(manifest: Manifest, tmp_path: Path) -> None:
    for flag in ("--text", "--binary"):
        with (tmp_path / NAME).open("w") as out:
            subprocess.run(["sha256sum", flag, "a.gguf"], cwd=tmp_path, stdout=out, check=True)
        assert manifest.hashes() == {"a.gguf": _sum(b"a")}


def test_what_files_are(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"x")
    (tmp_path / "org" / "b.gguf").unlink()
    (tmp_path / "c.gguf").write_bytes(b"c")
    paths = [tmp_path / name for name in ("a.gguf", "org/b.gguf", "c.gguf")]
    read: list[str] = []
    found = manifest.verify(paths, read.append)
    assert [(row.file, row.status, row.sha256) for row in found] == [
        ("a.gguf", "changed", _sum(b"x")),
        ("org/b.gguf", "missing", ""),
        ("c.gguf", "unrecorded", _sum(b"c")),
    ]
    assert read == ["a.gguf", "org/b.gguf", "c.gguf"]


def test_a_new_hash_takes_the_place_of_the_old(manifest: Manifest, tmp_path: Path) -> None:
    manifest.record({tmp_path / "a.gguf": _sum(b"x")})
    assert manifest.hashes() == {"a.gguf": _sum(b"x"), "org/b.gguf": _sum(b"b")}


def test_forgetting(manifest: Manifest, tmp_path: Path) -> None:
    manifest.forget([tmp_path / "a.gguf", tmp_path / "unknown.gguf"])
    assert manifest.hashes() == {"org/b.gguf": _sum(b"b")}
    manifest.forget([tmp_path / "org" / "b.gguf"])
    assert not (tmp_path / NAME).exists()


def test_files_elsewhere_are_not_recorded(manifest: Manifest, tmp_path: Path) -> None:
    before = manifest.hashes()
    manifest.record({tmp_path.parent / "elsewhere.gguf": _sum(b"")})
    assert manifest.hashes() == before
    assert manifest.verify([tmp_path.parent / "elsewhere.gguf"])[0].status == "missing"


@pytest.mark.parametrize("line", ["x", f"{'0' * 64}  ../a.gguf", f"{'0' * 64}  /etc/passwd", f"{'0' * 63}  a.gguf"])
def test_a_line_that_is_none_is_named(manifest: Manifest, tmp_path: Path, line: str) -> None:
    with (tmp_path / NAME).open("a") as out:
        out.write(line + "\n")
    with pytest.raises(errors.InvalidRequest, match="line 3"):
        manifest.hashes()
