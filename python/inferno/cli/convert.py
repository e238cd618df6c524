"""`inferno models convert`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from inferno import errors
from inferno.cli import options, output
from inferno.cli.quantize import output_file
from inferno.config import cache_dir
from inferno.models import converter
from inferno.models.convert import TYPES, check
from inferno.models.convert import convert as convert_model


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("target", metavar="[OUTPUT]", required=False)
@click.option(
    "--type", "kind", type=click.Choice(list(TYPES)), default="auto", help="auto: the directory's 16-bit type."
)
@click.option(
    "--python", type=click.Path(exists=True, path_type=Path), help="A Python that has what the converter needs."
)
@click.option("--trust-code", is_flag=True, help="Let the converter run DIRECTORY's own code.")
@click.option("--force", is_flag=True, help="Replace OUTPUT when it is there.")
@click.option("--yes", is_flag=True, help="Fetch what is missing without asking.")
@options.config_option
@options.models_dir_option
@options.json_option
def convert(
    directory: Path,
    target: str | None,
    kind: str,
    python: Path | None,
    trust_code: bool,
    force: bool,
    yes: bool,
    config_file: Path | None,
    models_dir: Path | None,
    as_json: bool,
) -> None:
    """Convert a Hugging Face model to GGUF.

    DIRECTORY has the model's safetensors, config.json and tokenizer, OUTPUT is an id or a file that ends in .gguf.
    llama.cpp's own converter does it, in a Python environment of its own, which is made in the cache the first time.
    """
    settings = options.settings_for(config_file, models_dir)
    suffix = "" if kind == "auto" else f"-{kind.upper()}"
    path = output_file(target, directory.resolve().name + suffix, settings)
    check(directory, path, kind, force=force, trust_code=trust_code)
    chosen = converter.locate(cache_dir(), python)
    _fetch(chosen, yes)
    bar, progress = output.count_progress(directory.name)
    with bar:
        digest = convert_model(
            directory, path, kind, settings.models.dir, chosen, force=force, trust_code=trust_code, progress=progress
        )
    if as_json:
        output.print_json({"path": str(path), "size_bytes": path.stat().st_size, "sha256": digest})
    else:
        print(f"{path} has {output.human_bytes(path.stat().st_size)}.")


def _fetch(chosen: converter.Converter, yes: bool) -> None:
    if not chosen.missing:
        return
    needed = f"Converting needs {'; and '.join(chosen.missing)}. It goes to {chosen.source.parent}."
    output.err.print(needed, highlight=False, markup=False, soft_wrap=True)
    if not yes and not (sys.stdin.isatty() and click.confirm("Fetch it?", err=True)):
        raise errors.InvalidRequest("Nothing was fetched: that needs a yes (or --yes).")
    converter.fetch(chosen, lambda text: output.err.print(f"{text} ...", highlight=False))
