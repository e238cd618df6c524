"""Entry point."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import NoReturn

import click
from rich.markup import escape

from inferno import __version__, errors
from inferno.cli import output
from inferno.engine import openmp


class Commands(output.SuggestingGroup):
    """Imports a command when it is asked for: `inferno --version` needs no server."""

    names = (
        "bench",
        "config",
        "gpu",
        "metrics",
        "models",
        "monitor",
        "run",
        "security",
        "serve",
        "upgrade",
        "webhooks",
    )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.names:
            return None
        command: click.Command = getattr(importlib.import_module(f"inferno.cli.{cmd_name}"), cmd_name)
        return command


_EXIT_CODES = f"""\b
Exit codes: 0 done, {output.EXIT_ERROR} refused or failed, 2 wrong usage,
{output.EXIT_NOT_FOUND} no such thing, {output.EXIT_UNAVAILABLE} not to be had now (no server, no room)."""


def _print_build(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from inferno import _core  # `inferno --version` starts without it

    click.echo(f"inferno {__version__}\nCPU code: {_core.cpu_code}")
    context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.version_option(__version__, prog_name="inferno")
@click.option(
    "--build-info",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_build,
    help="Show the version and which CPU code runs here, and exit.",
)
def cli() -> None:
    """Run language models on your own hardware."""


@cli.result_callback()
def _written(*_: object, **__: object) -> None:
    """Here and not at exit: click knows that who closes the pipe has read enough."""
    sys.stdout.flush()


def _say(problem: str) -> None:
    output.err.print(f"[bold red]error:[/] {escape(output.plain(problem))}", highlight=False, soft_wrap=True)


def _terminated(*_: object) -> NoReturn:
    """Temporary files and child processes are cleaned up and a terminal is left as it was, which the signal alone
    would not do. A server has its own way."""
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit code."""
    openmp.sleep_soon()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(output.EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except errors.InfernoError as error:
        _say(error.message)
        sys.exit(output.exit_code(error))
    except ImportError as error:
        if error.name is not None:  # a package that is missing, not an engine that cannot run here
            raise
        _say(error.msg)
        sys.exit(output.EXIT_ERROR)
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        # Bytes of an argument that are no characters. As paths they are good, so they are refused where they are used.
        _say("An argument is not UTF-8.")
        sys.exit(output.EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(output.EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
