"""`inferno models`: what is there, and getting more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from inferno import _core
from inferno.cli import options, output
from inferno.models.catalogue import catalogue
from inferno.models.pull import pull as pull_model
from inferno.models.pull import remove as remove_model
from inferno.models.registry import ModelEntry, Registry


@click.group(cls=output.SuggestingGroup)
def models() -> None:
    """List, inspect, download and delete models."""


def _registry(config_file: Path | None, models_dir: Path | None) -> Registry:
    settings = options.settings_for(config_file, models_dir)
    return Registry(settings.models.dir, settings.models.aliases)


def _json(entry: ModelEntry) -> dict[str, Any]:
    info = entry.info
    return {
        "id": entry.id,
        "name": entry.name,
        "path": str(entry.path),
        "size_bytes": entry.size_bytes,
        "architecture": info.architecture,
        "quantization": info.quantization,
        "parameters": info.n_params,
        "context_size": info.context_train,
        "embedding_size": info.n_embd,
        "layers": info.n_layer,
        "vocabulary_size": info.n_vocab,
        "capabilities": info.capabilities,
        "chat_template": bool(info.chat_template),
    }


@models.command("list")
@options.config_option
@options.models_dir_option
@options.json_option
def list_models(config_file: Path | None, models_dir: Path | None, as_json: bool) -> None:
    """List the models in the models directory."""
    registry = _registry(config_file, models_dir)
    entries = registry.entries()
    if as_json:
        output.print_json([_json(entry) for entry in entries])
        return
    rows = [
        (
            entry.id,
            entry.info.quantization,
            output.human_bytes(entry.size_bytes),
            entry.info.context_train,
            ", ".join(entry.info.capabilities),
        )
        for entry in entries
    ]
    if rows:
        output.print_table(("ID", "TYPE", "SIZE", "CONTEXT", "CAPABILITIES"), rows)
    else:
        output.err.print(f"No models yet. Try: inferno models pull {next(iter(catalogue()))}")
    for model_id, problem in registry.problems().items():
        text = output.plain(f"{model_id}: {problem}")
        output.err.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


@models.command()
@click.argument("model")
@options.config_option
@options.models_dir_option
@options.json_option
@options.engine_options
def info(model: str, config_file: Path | None, models_dir: Path | None, as_json: bool, **given: Any) -> None:
    """Show a model's facts and its memory.

    The facts are what MODEL's file says, the memory what loading it with the configured and the given options takes.
    """
    settings = options.settings_for(config_file, models_dir, **options.engine_flags(given))
    with options.suggestions(model):
        entry = Registry(settings.models.dir, settings.models.aliases).get(model)
    memory = _core.estimate_memory(str(entry.path), settings.engine)
    if as_json:
        output.print_json({**_json(entry), "memory": memory, "metadata": entry.info.metadata})
        return
    shown = {key: value for key, value in _json(entry).items() if key != "size_bytes"}
    shown |= {"size": output.human_bytes(entry.size_bytes), "memory": output.human_bytes(memory["total_bytes"])}
    output.print_fields(shown)


@models.command()
@click.argument("source")
@options.config_option
@options.models_dir_option
@options.json_option
def pull(source: str, config_file: Path | None, models_dir: Path | None, as_json: bool) -> None:
    """Download a model.

    SOURCE is a known name, hf:org/repo/file.gguf, a URL or a file.
    """
    settings = options.settings_for(config_file, models_dir)
    bar, progress = output.download_progress(source)
    with bar:
        pulled = pull_model(source, settings.models.dir, progress)
    if as_json:
        output.print_json({"id": pulled.id, "path": str(pulled.path), "sha256": pulled.sha256, "fresh": pulled.fresh})
    else:
        print(f"{pulled.id} is ready." if pulled.fresh else f"{pulled.id} was there already.")


@models.command()
@click.argument("model")
@options.config_option
@options.models_dir_option
@options.json_option
def rm(model: str, config_file: Path | None, models_dir: Path | None, as_json: bool) -> None:
    """Delete MODEL's file."""
    with options.suggestions(model):
        path = remove_model(model, _registry(config_file, models_dir))
    if as_json:
        output.print_json({"id": model, "path": str(path), "deleted": True})
    else:
        print(f"{model} has been deleted.")
