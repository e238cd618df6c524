"""`inferno metrics`: what a running server measures."""

from __future__ import annotations

import sys
from typing import Any

import click

from inferno.cli import output
from inferno.cli.client import connect, server_options


@click.command()
@click.option("--json", "form", flag_value="json", help="The same families as JSON.")
@click.option("--snapshot", "form", flag_value="snapshot", help="The main figures, as JSON.")
@server_options
def metrics(form: str | None, **where: Any) -> None:
    """Print what a running server measures.

    In Prometheus' text form, unless told otherwise.
    """
    with connect(**where) as server:
        if form is None:
            sys.stdout.write(server.text("/metrics"))
        else:
            output.print_json(server.get(f"/metrics/{form}"))
