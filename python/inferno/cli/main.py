"""Entry point."""

from __future__ import annotations

import sys

import click

from inferno import __version__, errors
from inferno.cli import bench, config, models, output, run, serve


@click.group(cls=output.SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="inferno")
def cli() -> None:
    """Run language models on your own hardware."""


cli.add_command(serve.serve)
cli.add_command(run.run)
cli.add_command(models.models)
cli.add_command(bench.bench)
cli.add_command(config.config)


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(output.EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except errors.InfernoError as error:
        output.err.print(f"[bold red]error:[/] {error.message}", highlight=False, soft_wrap=True)
        sys.exit(output.exit_code(error))
    except KeyboardInterrupt:
        sys.exit(output.EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
