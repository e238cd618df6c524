"""What an index offers. pip reads it, so that what is told is what an install would take: pages in JSON (PEP 691) or
HTML (PEP 503), withdrawn versions (PEP 592), the Python and the platform that a file is for."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from packaging.version import InvalidVersion, Version

from inferno import errors
from inferno.config import UpgradeSettings
from inferno.upgrade.pip import Pip, Ran

_PATIENCE_S = 120.0
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Which package of which index; an empty `index` is pip's own."""

    package: str
    index: str
    channel: str


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A version that can be had. Withdrawn ones ("yanked") are found only when they are asked for by number."""

    version: str
    is_withdrawn: bool


def source(settings: UpgradeSettings) -> Source:
    """Raises InvalidRequest for a name that is none (PEP 508) and for an address that is no index's."""
    if not _NAME.fullmatch(settings.package):
        raise errors.InvalidRequest("upgrade.package is not the name of a package.", field="upgrade.package")
    if settings.index and (problem := _index_problem(settings.index)):
        raise errors.InvalidRequest(f"upgrade.index {problem}.", field="upgrade.index")
    return Source(package=settings.package, index=settings.index, channel=settings.channel)


def _index_problem(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https", "file") or not all("!" <= c <= "~" for c in address):
        return "must be an http, https or file URL"
    if parts.username is not None or parts.password is not None:
        return "must not carry a password: pip reads those from ~/.netrc or a keyring"
    if parts.query or parts.fragment or (host is None) != (parts.scheme == "file"):
        return "must name an index and nothing else"
    return None


def version(text: str) -> str:
    """`text` as PEP 440 writes it. Raises InvalidRequest when it is no version."""
    try:
        return str(Version(text))
    except InvalidVersion:
        shown = text if text.isprintable() and len(text) <= 64 else "?"
        raise errors.InvalidRequest(f"'{shown}' is not a version.", field="version") from None


def latest(pip: Pip, wanted: Source) -> Release | None:
    """The newest version of the channel that fits this Python and machine; None when the channel has none.

    Raises ServiceUnavailable when the index cannot be reached or understood, or has no wheel that fits.
    """
    before = ("--pre",) if wanted.channel == "beta" else ()
    release = _asked(pip, wanted.package, wanted.package, *before)
    # pip offers a version before the first release when there is nothing else.
    return None if Version(release.version).is_prerelease and wanted.channel != "beta" else release


def find(pip: Pip, package: str, number: str) -> Release:
    """Raises NotFound when the index has no such version that fits; ServiceUnavailable as `latest` does."""
    return _asked(pip, package, f"{package}=={number}")


class _Metadata(msgspec.Struct):
    version: str


class _Found(msgspec.Struct):
    metadata: _Metadata
    is_yanked: bool = False


class _Report(msgspec.Struct):
    """Of pip's installation report, format 1 (https://pip.pypa.io/en/stable/reference/installation-report/)."""

    install: list[_Found]


def _asked(pip: Pip, package: str, requirement: str, *options: str) -> Release:
    # Wheels only: to look at a source distribution is to run it.
    ask = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary", package, "--retries", "1", *options]
    with tempfile.TemporaryDirectory(prefix="inferno-upgrade-") as directory:
        report = Path(directory) / "report.json"
        # -vv: only then does pip say which address it could not fetch, and why.
        ran = pip.run("install", "-vv", *ask, "--report", str(report), requirement, patience_s=_PATIENCE_S)
        if ran.status == 0:
            return _release(report.read_bytes())
    raise _failure(ran, package, requirement)


def _release(report: bytes) -> Release:
    try:
        found = msgspec.json.decode(report, type=_Report).install[0]
        return Release(version=str(Version(found.metadata.version)), is_withdrawn=found.is_yanked)
    except (msgspec.MsgspecError, IndexError, InvalidVersion):
        raise errors.ServiceUnavailable("pip's report about the index cannot be understood.") from None


def _failure(ran: Ran, package: str, requirement: str) -> errors.InfernoError:
    if ran.no_such_version:
        return errors.NotFound(f"The index has no {requirement} that fits this Python and machine.")
    return errors.ServiceUnavailable(f"The index has no usable wheel of {package}: {ran.reason}")
