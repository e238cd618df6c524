"""docs/command-line.md names every command and every exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from inferno.cli import output, upgrade
from inferno.cli.main import cli

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
ROWS = {name: row for row in PAGE.splitlines() for name in re.findall(r"^\| `inferno (\w+)` \|", row)}


@pytest.mark.parametrize("name", cli.list_commands(click.Context(cli)))
def test_every_command_has_its_row(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    verbs = command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []
    for verb in verbs:
        assert f"`{verb}`" in ROWS[name]
    assert name in ROWS


def test_every_exit_code_has_its_row() -> None:
    codes = {value for name, value in vars(output).items() if name.startswith("EXIT_")} | {upgrade.EXIT_BROKEN, 0, 2}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes
