"""`inferno models quantize`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from inferno import _core, errors
from inferno.cli import options, output
from inferno.config import Settings
from inferno.models.parts import without_part
from inferno.models.quantize import MAX_RATIO, Quantization, Quantized
from inferno.models.quantize import quantize as quantize_model
from inferno.models.registry import is_valid_id

_TYPE_AT_END = re.compile(rf"[-._]({'|'.join(sorted(_core.file_types(), key=len, reverse=True))})$", re.IGNORECASE)


def output_file(given: str | None, default_id: str, settings: Settings) -> Path:
    """The file of an OUTPUT argument: a path that ends in .gguf, or an id in the models directory."""
    if given is not None and given.endswith(".gguf"):
        return Path(given)
    model_id = default_id if given is None else given
    if not is_valid_id(model_id):
        raise errors.InvalidRequest(f"{model_id!r} is not an id and does not end in .gguf.", field="output")
    return settings.models.dir / f"{model_id}.gguf"


@click.command()
@click.argument("source")
@click.argument("type_name", metavar="TYPE")
@click.argument("target", metavar="[OUTPUT]", required=False)
@click.option("--allow-requantize", is_flag=True, help="Take a source that is quantized already.")
@click.option("--leave-output", is_flag=True, help="Leave the output matrix as it is.")
@click.option("--pure", is_flag=True, help="One type for all matrices instead of a mixture.")
@click.option(
    "--imatrix",
    type=click.Path(exists=True, dir_okay=False),
    help="Importance matrix, a GGUF file of llama.cpp's imatrix tool.",
)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Threads; 0 takes all of the machine's.")
@click.option("--force", is_flag=True, help="Replace OUTPUT when it is there.")
@click.option("--verify/--no-verify", default=True, help="Compare perplexities before OUTPUT is put in place.")
@click.option(
    "--max-ratio",
    type=click.FloatRange(1.0),
    default=MAX_RATIO,
    show_default=True,
    help="Perplexity, in the source's, beyond which the result is broken.",
)
@options.config_option
@options.models_dir_option
@options.json_option
def quantize(
    source: str,
    type_name: str,
    target: str | None,
    imatrix: str | None,
    config_file: Path | None,
    models_dir: Path | None,
    as_json: bool,
    force: bool,
    verify: bool,
    max_ratio: float,
    **given: Any,
) -> None:
    """Write a model with weights of another type.

    SOURCE is a model's id or a file, TYPE one of llama.cpp's, such as Q4_K_M, Q8_0 or BF16 (COPY joins the parts of a
    split model), OUTPUT an id or a file that ends in .gguf. Without it the model's id is SOURCE-TYPE.
    """
    settings = options.settings_for(config_file, models_dir)
    path = options.model_file(source, settings)
    stem = _TYPE_AT_END.sub("", without_part(path.stem))
    bar, progress = output.count_progress(f"{path.stem} -> {type_name.upper()}")
    with bar:
        made = quantize_model(
            path,
            output_file(target, f"{stem}-{type_name.upper()}", settings),
            Quantization(type=type_name.upper(), imatrix=imatrix or "", **given),
            settings.models.dir,
            engine=settings.engine,
            max_ratio=max_ratio if verify else None,
            force=force,
            progress=progress,
        )
    _report(made, path, as_json)


def _report(made: Quantized, source: Path, as_json: bool) -> None:
    found = made.verification
    facts = {
        "path": str(made.path),
        "size_bytes": made.size_bytes,
        "sha256": made.sha256,
        "fallback_tensors": made.fallbacks,
        "perplexity": found and found.result,
        "source_perplexity": found and found.source,
        "perplexity_tokens": found and found.tokens,
    }
    if as_json:
        output.print_json(facts)
        return
    print(f"{made.path} has {output.human_bytes(made.size_bytes)}.")
    if made.fallbacks:
        print(f"{made.fallbacks} tensors have another type: their rows do not fit the blocks of the one asked for.")
    if found:
        change = (found.ratio - 1) * 100
        print(
            f"Perplexity {found.result:.3f}, {source.name} {found.source:.3f} ({change:+.1f} %, {found.tokens} tokens)."
        )
    else:
        print("Its perplexity was not compared.")
