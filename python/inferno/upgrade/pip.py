"""pip, run as a program: with argument lists, without questions, in a process group of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

#: pip's words when an index answers but has no version that fits.
_OTHER_VERSIONS = re.compile(r"\(from versions: (?!none\))")
_NOT_FETCHED = re.compile(r"Could not fetch URL .*")


class Ran(msgspec.Struct, frozen=True):
    """How a run of pip ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def no_such_version(self) -> bool:
        return self.status != 0 and _OTHER_VERSIONS.search(self.stderr) is not None

    @property
    def reason(self) -> str:
        """The line of pip's output that says best what went wrong, in printable characters."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()] or ["pip says nothing"]
        said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        fetched = _NOT_FETCHED.findall(self.stdout)
        best = (fetched or (said if said and said[-1] != "Exception:" else lines))[-1]
        return "".join(c for c in best if c.isprintable())[:500]


class Pip:
    """The pip of one Python. Its own configuration (proxies, certificates, further indexes) stays in force."""

    def __init__(self, python: Path, index: str = "", keep_open: Sequence[int] = ()) -> None:
        """`index` replaces pip's own. pip inherits the descriptors `keep_open`: a lock outlives us for as long as
        pip runs."""
        self._python = python
        self._index = ("--index-url", index) if index else ()
        self._keep_open = tuple(keep_open)
        self._running: subprocess.Popen[bytes] | None = None
        self.is_stopped = False

    def run(self, *arguments: str, patience_s: float, with_index: bool = True) -> Ran:
        """Wait for at most `patience_s` seconds. An exception, such as KeyboardInterrupt, ends pip."""
        # -I: a file pip.py in the working directory is not pip.
        command = [str(self._python), "-I", "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check"]
        command += self._index if with_index else ("--no-index",)
        # Into files: should this process be killed, pip must not stumble over a pipe that nobody reads.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for us: we decide how pip ends
                pass_fds=self._keep_open,
            ) as self._running:
                late = self._wait(self._running, patience_s)
            return late or Ran(self._running.returncode, _text(stdout), _text(stderr))

    def _wait(self, process: subprocess.Popen[bytes], patience_s: float) -> Ran | None:
        try:
            if self.is_stopped:
                _kill(process)
            process.wait(patience_s)
            return None
        except subprocess.TimeoutExpired:
            _kill(process)
            return Ran(-signal.SIGKILL, "", f"pip did not end within {patience_s:g} seconds")
        except BaseException:
            _kill(process)
            raise

    def stop(self) -> None:
        """End what runs, and whatever is run later; from any thread."""
        self.is_stopped = True
        if self._running is not None:
            _kill(self._running)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """pip and all that it started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
