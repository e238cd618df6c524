"""A terminal with a command in it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType

PATIENCE_S = 60.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
#: Makes standard input the terminal that Ctrl-C is typed at, then becomes the command.
_ADOPT = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"


class Terminal:
    """`inferno` with arguments, on a terminal of 80 columns."""

    def __init__(self, *arguments: str, env: dict[str, str], term: str = "xterm-256color") -> None:
        self._master, self._slave = pty.openpty()
        self.resize(80, 30)
        self._usual = termios.tcgetattr(self._slave)
        command = [sys.executable, "-c", _ADOPT, sys.executable, "-m", "inferno.cli.main", *arguments]
        self.process = subprocess.Popen(
            command,
            env={**env, "TERM": term},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )
        self._raw = b""
        self._matched = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    @property
    def text(self) -> str:
        """All that was written, without what steers the terminal."""
        return _ESCAPES.sub("", self._raw.decode("utf-8", "replace"))

    @property
    def raw(self) -> str:
        return self._raw.decode("utf-8", "replace")

    @property
    def is_as_before(self) -> bool:
        """It echoes and waits for whole lines again."""
        return termios.tcgetattr(self._slave) == self._usual

    def until(self, pattern: str) -> re.Match[str]:
        """The first match after the last one, once it has been written."""
        deadline, compiled = time.monotonic() + PATIENCE_S, re.compile(pattern)
        while (found := compiled.search(self.text, self._matched)) is None:
            if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{pattern!r} did not come:\n{self.text[self._matched :]}")
            self._raw += os.read(self._master, 65536)
        self._matched = found.end()
        return found

    def ended(self) -> int:
        """The exit code, once everything has been read."""
        while self.process.poll() is None or select.select([self._master], [], [], 0)[0]:
            if select.select([self._master], [], [], 0.05)[0]:
                self._raw += os.read(self._master, 65536)
        return self.process.returncode
