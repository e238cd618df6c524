"""`inferno gpu`: the devices that models can be put on."""

from __future__ import annotations

import click

from inferno import _core
from inferno.cli import options, output


@click.group(cls=output.SuggestingGroup)
def gpu() -> None:
    """Show the GPUs that Inferno can use."""


@gpu.command("list")
@options.json_option
def list_gpus(as_json: bool) -> None:
    """List the devices, with their memory, by the names that --device takes."""
    _core.set_log_level(1)
    devices = _core.devices()
    if as_json:
        output.print_json({"backends": _core.gpu_backends(), "devices": devices})
        return
    if devices:
        rows = [
            (row["name"], row["kind"], _bytes(row["free_bytes"]), _bytes(row["total_bytes"]), row["description"])
            for row in devices
        ]
        output.print_table(("DEVICE", "KIND", "FREE", "MEMORY", "DESCRIPTION"), rows)
    elif backends := _core.gpu_backends():
        print(f"No GPU was found. This build of Inferno can use {' and '.join(backends)}.")
    else:
        print("This build of Inferno computes on the processor alone.")


def _bytes(n: int) -> str:
    """What a driver does not say is 0."""
    return output.human_bytes(n) if n else "-"
