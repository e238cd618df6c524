"""`inferno config`: what is in force, and why."""

from __future__ import annotations

from pathlib import Path

import click

from inferno import errors
from inferno.cli import options, output
from inferno.config import default_config_file, default_toml


@click.group(cls=output.SuggestingGroup)
def config() -> None:
    """Show, write and check the configuration."""


@config.command()
@options.config_option
@options.json_option
def show(config_file: Path | None, as_json: bool) -> None:
    """Print every setting, its value and where that came from."""
    explained = options.settings_for(config_file).explained
    if as_json:
        output.print_json({item.key: {"value": item.value, "source": item.source} for item in explained})
    else:
        output.print_table(("SETTING", "VALUE", "SOURCE"), [(e.key, e.value, e.source) for e in explained])


@config.command()
@options.config_option
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(config_file: Path | None, force: bool) -> None:
    """Write a commented configuration file."""
    path = config_file or default_config_file()
    if path.exists() and not force:
        raise errors.InvalidRequest(f"{path} exists already; --force replaces it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(default_toml())
    print(f"Wrote {path}.")


@config.command()
@options.config_option
def validate(config_file: Path | None) -> None:
    """Check the configuration.

    Exit code 1 says that it is not valid, and all that is wrong is told.
    """
    options.settings_for(config_file)
    print("The configuration is valid.")
