"""`inferno models`: what is there, and getting more."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, TypeAlias

import click

from inferno import _core, errors
from inferno.cli import options, output
from inferno.cli.convert import convert
from inferno.cli.quantize import quantize
from inferno.config import Settings
from inferno.engine.estimate import estimate_memory
from inferno.models.catalogue import catalogue
from inferno.models.manifest import Manifest, Verified
from inferno.models.parts import parts_of
from inferno.models.pull import pull as pull_model
from inferno.models.pull import remove as remove_model
from inferno.models.registry import ModelEntry, Registry


@click.group(cls=output.SuggestingGroup)
def models() -> None:
    """List, inspect, download, convert, verify and delete models."""


models.add_command(convert)
models.add_command(quantize)

#: (name, type, shape, bytes)
Tensor: TypeAlias = tuple[str, str, list[int], int]


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
        "files": len(parts_of(entry.path)),
        "architecture": info.architecture,
        "quantization": info.quantization,
        "parameters": info.n_params,
        "context_size": info.context_train,
        "embedding_size": info.n_embd,
        "layers": info.n_layer,
        "tokenizer": info.metadata.get("tokenizer.ggml.model", ""),
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
@click.option("--tensors", "with_tensors", is_flag=True, help="List the tensors.")
@click.option("--metadata", "with_metadata", is_flag=True, help="List what the file says of itself.")
@click.option("--template", "only_template", is_flag=True, help="Print the chat template and nothing else.")
@options.config_option
@options.models_dir_option
@options.json_option
@options.engine_options
def info(
    model: str,
    with_tensors: bool,
    with_metadata: bool,
    only_template: bool,
    config_file: Path | None,
    models_dir: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Show a model's facts and its memory.

    MODEL is an id or a file. The facts are what the file says, the memory what loading it with the configured and the
    given options takes.
    """
    settings = options.settings_for(config_file, models_dir, **options.engine_flags(given))
    entry = options.model_entry(model, settings)
    if only_template:
        _print_template(entry, as_json)
        return
    memory = asyncio.run(estimate_memory(entry.path, settings.engine))
    tensors = _core.list_tensors(str(entry.path))
    if as_json:
        facts = {**_json(entry), "memory": memory, "metadata": entry.info.metadata, "tensor_types": _mix(tensors)}
        output.print_json(facts | ({"tensors": _tensor_rows(tensors)} if with_tensors else {}))
    else:
        _print_info(entry, settings, memory, tensors)
        if with_metadata:
            output.print_fields({key: value for key, value in entry.info.metadata.items() if "\n" not in value})
        if with_tensors:
            output.print_table(("TENSOR", "TYPE", "SHAPE", "SIZE"), _shown_tensors(tensors))


def _print_template(entry: ModelEntry, as_json: bool) -> None:
    text = entry.info.chat_template
    if not text:
        raise errors.NotFound(f"{entry.id} has no chat template.")
    if as_json:
        output.print_json({"id": entry.id, "chat_template": text})
    else:
        print(output.plain(text) if sys.stdout.isatty() else text)


def _print_info(entry: ModelEntry, settings: Settings, memory: dict[str, Any], tensors: list[Tensor]) -> None:
    shown = {key: value for key, value in _json(entry).items() if key != "size_bytes"}
    shown |= {"size": output.human_bytes(entry.size_bytes), "memory": output.human_bytes(memory["total_bytes"])}
    parts = {name: memory[f"{name}_bytes"] for name in ("model", "context", "compute", "store")} | {
        f"of it on {device}": size for device, size in memory["device_bytes"].items()
    }
    shown |= {f"memory: {name}": output.human_bytes(size) for name, size in parts.items()}
    context = min(settings.engine["context_size"], entry.info.context_train or settings.engine["context_size"])
    shown["memory is for"] = f"{settings.engine['parallel']} sequences of {context} tokens"
    output.print_fields(shown)
    rows = [(kind, row["tensors"], output.human_bytes(row["bytes"])) for kind, row in _mix(tensors).items()]
    output.print_table(("WEIGHTS", "TENSORS", "SIZE"), rows)


def _mix(tensors: list[Tensor]) -> dict[str, dict[str, int]]:
    """Type -> how many tensors and bytes, the largest share first."""
    found: dict[str, dict[str, int]] = {}
    for _, kind, _, size in tensors:
        row = found.setdefault(kind, {"tensors": 0, "bytes": 0})
        row["tensors"] += 1
        row["bytes"] += size
    return dict(sorted(found.items(), key=lambda item: -item[1]["bytes"]))


def _tensor_rows(tensors: list[Tensor]) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind, "shape": shape, "bytes": size} for name, kind, shape, size in tensors]


def _shown_tensors(tensors: list[Tensor]) -> list[tuple[str, str, str, str]]:
    return [(name, kind, " x ".join(map(str, shape)), output.human_bytes(size)) for name, kind, shape, size in tensors]


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


@models.command()
@click.argument("model", required=False)
@click.option("--record", is_flag=True, help="Write the hashes of files that have none.")
@options.config_option
@options.models_dir_option
@options.json_option
def verify(model: str | None, record: bool, config_file: Path | None, models_dir: Path | None, as_json: bool) -> None:
    """Compare files with their sha256.

    The hashes are in SHA256SUMS in the models directory, where `pull`, `quantize` and `convert` write them. All files
    are read, or MODEL's. The exit code is 0 only when each is as it was recorded.
    """
    registry = _registry(config_file, models_dir)
    manifest = Manifest(registry.models_dir)
    with options.suggestions(model or ""), output.err.status("") as status:
        found = manifest.verify(_files(model, registry, manifest), lambda name: status.update(output.plain(name)))
    if record:
        new = {row.file: row.sha256 for row in found if row.status == "unrecorded"}
        manifest.record({registry.models_dir / file: digest for file, digest in new.items()})
        found = [Verified(file=row.file, status="ok", sha256=row.sha256) if row.file in new else row for row in found]
    if as_json:
        output.print_json([{"file": row.file, "status": row.status, "sha256": row.sha256} for row in found])
    else:
        output.print_table(("FILE", "STATUS"), [(row.file, row.status) for row in found])
    if any(row.status != "ok" for row in found):
        sys.exit(output.EXIT_ERROR)


def _files(model: str | None, registry: Registry, manifest: Manifest) -> list[Path]:
    """MODEL's files, or all that are there or have a hash."""
    if model is not None:
        return parts_of(registry.path(model))
    there = [part for path in registry.files() for part in parts_of(path)]
    by_name = {manifest.name_of(path): path for path in (*manifest.paths(), *there)}
    return [path for _, path in sorted(by_name.items(), key=lambda item: str(item[0]))]
