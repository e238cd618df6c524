"""`inferno upgrade`: newer versions, told when asked and installed when agreed to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from inferno import errors
from inferno.cli import options, output
from inferno.config import Settings
from inferno.upgrade import check as checks
from inferno.upgrade import index
from inferno.upgrade.history import Record
from inferno.upgrade.index import Source
from inferno.upgrade.install import Plan, Upgrades
from inferno.upgrade.installation import Installation, inspect

#: Neither the new version nor the one before works.
EXIT_BROKEN = 5

F = TypeVar("F", bound=Callable[..., Any])


def _where(command: F) -> F:
    """The flags of every verb: whose settings, whose state, which environment."""
    python = click.option(
        "--python",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The Python whose Inferno is meant; by default the one that runs this.",
    )
    return options.config_option(options.data_dir_option(python(command)))


class _Subject:
    """What a verb is about."""

    def __init__(self, config_file: Path | None, data_dir: Path | None, python: Path | None) -> None:
        self.settings: Settings = options.settings_for(config_file, data_dir=data_dir)
        self.source: Source = index.source(self.settings.upgrade)
        self.installation: Installation = inspect((python or Path(sys.executable)).absolute(), self.source.package)
        self.upgrades = Upgrades(self.source, self.installation, self.settings.data_dir)


@click.group(cls=output.SuggestingGroup)
def upgrade() -> None:
    """Look for a newer version, install it, go back."""


@upgrade.command()
@_where
@options.json_option
def check(as_json: bool, **where: Any) -> None:
    """Say whether there is a newer version. Installs nothing."""
    subject = _Subject(**where)
    found = checks.check(subject.source, subject.installation, subject.settings.data_dir)
    package, installed = subject.source.package, subject.installation.version
    newer = found.is_newer_than(installed)
    if as_json:
        about = {"package": package, "channel": subject.source.channel, "installed": installed}
        output.print_json({**about, "latest": found.latest, "newer": newer})
    elif newer:
        print(f"{package} {found.latest} is available; {installed} is installed.")
        print("`inferno upgrade install` installs it.")
    else:
        print(f"{package} {installed} is installed; the {subject.source.channel} channel has nothing newer.")


@upgrade.command()
@click.argument("version", required=False)
@_where
@click.option("--yes", is_flag=True, help="Do not ask.")
def install(version: str | None, yes: bool, **where: Any) -> None:
    """Install VERSION, or the latest of the channel.

    Undone when it does not work.
    """
    subject = _Subject(**where)
    plan = subject.upgrades.plan(version)
    if plan is None:
        print(f"{subject.source.package} {subject.installation.version} is installed; there is nothing to do.")
        return
    _agree(_described(plan), yes)
    by_hand = subject.upgrades.by_hand(plan.previous)
    output.err.print(
        f"Should this be cut off, this restores {plan.previous}: {by_hand}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    _tell(subject.upgrades.install(plan), by_hand)


@upgrade.command()
@_where
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(yes: bool, **where: Any) -> None:
    """Go back to the version before the last install."""
    subject = _Subject(**where)
    target = subject.upgrades.rollback_target()
    if target is not None:
        _agree(f"{target.package} {target.previous} replaces {subject.installation.version}.", yes)
    record = subject.upgrades.rollback()
    _tell(record, subject.upgrades.by_hand(record.version))


@upgrade.command()
@_where
@options.json_option
def status(as_json: bool, **where: Any) -> None:
    """Say what is installed, what is known and what can be done. Asks no index."""
    subject = _Subject(**where)
    fields = _status(subject)
    if as_json:
        output.print_json(fields)
        return
    shown = {**fields, "last_check": _check_text(fields["last_check"])}
    shown |= {name: _record_text(fields[name]) for name in ("last_install", "unfinished")}
    output.print_fields({name.replace("_", " "): value or "-" for name, value in shown.items()})
    if unfinished := subject.upgrades.unfinished():
        print(f"The {unfinished.action} of {unfinished.version} over {unfinished.previous} was begun and did not end.")
        print("`inferno upgrade rollback` restores what was there before.")


@upgrade.command()
@_where
@options.json_option
def history(as_json: bool, **where: Any) -> None:
    """List what was done, the latest last."""
    records, unreadable = _Subject(**where).upgrades.history.read()
    if as_json:
        output.print_json([_json(record) for record in records])
    elif records:
        rows = [(r.time, r.action, r.previous, r.version, r.outcome, r.detail) for r in records]
        output.print_table(("TIME", "ACTION", "FROM", "TO", "OUTCOME", "DETAIL"), rows)
    else:
        output.err.print("No upgrades yet.")
    if unreadable:
        output.err.print(f"{unreadable} lines of the history cannot be read.", style="yellow")


def _status(subject: _Subject) -> dict[str, Any]:
    upgrades, installation = subject.upgrades, subject.installation
    known = checks.last_check(subject.source, installation, subject.settings.data_dir)
    records, _ = upgrades.history.read()
    installs = [record for record in records if record.action == "install"]
    unfinished, target = upgrades.unfinished(), upgrades.rollback_target()
    return {
        "package": subject.source.package,
        "installed": installation.version,
        "channel": subject.source.channel,
        "index": subject.source.index or None,
        "last_check": known and {"time": known.time, "latest": known.latest, "problem": known.problem},
        "last_install": _json(installs[-1]) if installs else None,
        "unfinished": unfinished and _json(unfinished),
        "rollback_to": target.previous if target and not installation.refusal else None,
        "refusal": installation.refusal,
    }


def _json(record: Record) -> dict[str, str]:
    return {
        "time": record.time,
        "package": record.package,
        "action": record.action,
        "from": record.previous,
        "to": record.version,
        "outcome": record.outcome,
        "detail": record.detail,
    }


def _check_text(known: dict[str, str] | None) -> str | None:
    return f"{known['time']}: {known['problem'] or known['latest'] or 'nothing'}" if known else None


def _record_text(record: dict[str, str] | None) -> str | None:
    return f"{record['time']}: from {record['from']} to {record['to']}, {record['outcome']}" if record else None


def _described(plan: Plan) -> str:
    withdrawn = " Its makers have withdrawn it." if plan.is_withdrawn else ""
    older = ", which is newer" if plan.is_older else ""
    return f"{plan.package} {plan.version} replaces {plan.previous}{older}.{withdrawn}"


def _agree(what: str, yes: bool) -> None:
    """Nothing is changed without a yes: of a person, or given in advance."""
    output.err.print(what, highlight=False, markup=False, soft_wrap=True)
    try:
        agreed = yes or click.confirm("Do it?", err=True)
    except click.Abort:
        agreed = False
    if not agreed:
        raise errors.InvalidRequest("Nothing was changed: that needs a yes (or --yes).")


def _tell(record: Record, by_hand: str) -> None:
    """How it ended, in words and in the exit code. Plain print: what is on the disk is another version now."""
    if record.outcome == "done":
        print(f"{record.package} {record.version} is installed and works. Restart servers that run.")
        return
    end = {
        "failed": f"nothing was changed, {record.previous} is installed.",
        "rolled back": f"{record.previous} is installed again and works.",
        "broken": f"it does not work. By hand: {by_hand}",
    }[record.outcome]
    print(f"{record.package} {record.version}: {record.detail}.", file=sys.stderr)
    print(f"The {record.action} failed: {end}", file=sys.stderr)
    sys.exit(EXIT_BROKEN if record.outcome == "broken" else output.EXIT_ERROR)
