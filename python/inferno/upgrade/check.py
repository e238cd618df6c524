"""Is there a newer version? Told by a command when asked, and by a line in the log of a server that is told to."""

from __future__ import annotations

import contextlib
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from packaging.version import InvalidVersion, Version

from inferno import errors
from inferno.config import Settings
from inferno.upgrade import index
from inferno.upgrade.history import now, replace
from inferno.upgrade.index import Source
from inferno.upgrade.installation import Installation, inspect
from inferno.upgrade.pip import Pip

log = logging.getLogger(__name__)

_NOTICE_EVERY = timedelta(days=1)
_FILE = "last-check.json"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What an index said. `latest` is None when the channel had no version, and `problem` says why it is not known."""

    time: str
    source: Source
    latest: str | None = None
    problem: str | None = None

    def is_newer_than(self, installed: str) -> bool:
        return self.latest is not None and Version(self.latest) > Version(installed)


def check(wanted: Source, installation: Installation, data_dir: Path, pip: Pip | None = None) -> Check:
    """Ask the index and keep what it says. Raises ServiceUnavailable as `index.latest` does."""
    pip = pip or Pip(installation.python, wanted.index)
    try:
        release = index.latest(pip, wanted)
    except errors.ServiceUnavailable as error:
        if not pip.is_stopped:  # the index is not to blame
            _write(Check(time=now(), source=wanted, problem=error.message), installation, data_dir)
        raise
    latest = None if release is None else release.version
    return _write(Check(time=now(), source=wanted, latest=latest), installation, data_dir)


def last_check(wanted: Source, installation: Installation, data_dir: Path) -> Check | None:
    """The last answer about this very source, if there is one."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, InvalidVersion):
        kept = msgspec.json.decode((installation.state_dir(data_dir) / _FILE).read_bytes(), type=Check)
        Version(kept.latest or "0")
        return kept if kept.source == wanted else None
    return None


def _write(result: Check, installation: Installation, data_dir: Path) -> Check:
    try:
        replace(installation.state_dir(data_dir) / _FILE, msgspec.json.encode(result))
    except OSError as error:
        raise errors.ServiceUnavailable(f"The result of the check cannot be kept: {error.strerror}.") from None
    return result


class Notice:
    """One line in a server's log about a newer version, when `upgrade.check` asks for it.

    It looks in a thread of its own and asks the index at most once a day, whether that answers or not. Nothing that
    goes wrong there reaches the server; leaving the context ends what still runs. It never installs.
    """

    def __init__(self, settings: Settings, python: Path) -> None:
        self._settings = settings
        self._python = python
        self._pip: Pip | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._look, name="upgrade-notice", daemon=True)

    def begin(self) -> None:
        if self._settings.upgrade.check:
            self._thread.start()

    def wait(self) -> None:
        """Until the line is written."""
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        if self._pip is not None:
            self._pip.stop()
        self.wait()

    def _look(self) -> None:
        try:
            line = self._line()
        except (errors.InfernoError, OSError) as error:
            line = f"No check for a newer version: {error}"
        if line and not self._is_over:
            log.info(line)

    def _line(self) -> str | None:
        wanted = index.source(self._settings.upgrade)
        installation = inspect(self._python, wanted.package)
        known = last_check(wanted, installation, self._settings.data_dir)
        if known is None or _age(known) >= _NOTICE_EVERY:
            known = self._check(wanted, installation)
        if not known.is_newer_than(installation.version):
            return None
        return (
            f"{wanted.package} {known.latest} is available, {installation.version} is installed; "
            "`inferno upgrade install` installs it"
        )

    def _check(self, wanted: Source, installation: Installation) -> Check:
        self._pip = Pip(installation.python, wanted.index)
        if self._is_over:  # it could not be stopped before it was there
            self._pip.stop()
        return check(wanted, installation, self._settings.data_dir, self._pip)


def _age(kept: Check) -> timedelta:
    """A time in the future is no reason never to ask again."""
    try:
        return abs(datetime.now(UTC) - datetime.fromisoformat(kept.time))
    except (ValueError, TypeError):
        return _NOTICE_EVERY
