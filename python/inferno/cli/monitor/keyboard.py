"""Keys of a terminal, one by one and unseen."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def keys(pressed: Callable[[str], object]) -> Iterator[None]:
    """Call `pressed`, in a thread, with each key until the block is left; nothing where standard input is no terminal.
    Ctrl-C stays what it is."""
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    usual = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        threading.Thread(target=_read, args=(terminal, pressed), daemon=True).start()
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, usual)


def _read(terminal: int, pressed: Callable[[str], object]) -> None:
    """Until the terminal is gone."""
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 64):
            for key in data.decode("utf-8", "ignore"):
                pressed(key)
