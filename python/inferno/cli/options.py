"""Flags and arguments that several commands share, folded from the settings table."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from inferno import errors
from inferno.config import Settings, engine_settings, load_settings
from inferno.models.catalogue import catalogue
from inferno.models.parts import first_part, without_part
from inferno.models.registry import ModelEntry, Registry

F = TypeVar("F", bound=Callable[..., Any])

config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Configuration file (TOML)."
)
models_dir_option = click.option("--models-dir", type=click.Path(path_type=Path), help="Where model files are.")
data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path), help="Where keys and state are kept.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def engine_options(command: F) -> F:
    """One flag for each engine option: --context-size, --parallel, --gpu-layers and so on."""
    for setting in reversed(engine_settings()):
        name = setting.key.partition(".")[2].replace("_", "-")
        flag = f"--{name}/--no-{name}" if setting.kind is bool else f"--{name}"
        kind = None if setting.kind is bool else setting.kind
        command = click.option(flag, type=kind, default=None, help=setting.help)(command)
    return command


def engine_flags(values: dict[str, Any]) -> dict[str, Any]:
    """The engine options among a command's values, as settings; removes them from `values`."""
    names = [setting.key.partition(".")[2] for setting in engine_settings()]
    return {f"engine.{name}": values.pop(name) for name in names if name in values}


def chosen_engine_options(settings: Settings) -> dict[str, Any]:
    """The engine options that a flag, the environment or the file sets; the others are each command's own affair."""
    chosen = {row.key for row in settings.explained if row.source != "default"}
    return {name: value for name, value in settings.engine.items() if f"engine.{name}" in chosen}


def model_file(model: str, settings: Settings) -> Path:
    """The file of a MODEL argument: a GGUF file (of a split model any part), or the id of a model or alias.

    Raises ModelNotFound."""
    if model.endswith(".gguf"):
        return first_part(Path(model))
    with suggestions(model):
        return Registry(settings.models.dir, settings.models.aliases).get(model).path


def model_entry(model: str, settings: Settings) -> ModelEntry:
    """The facts of a MODEL argument. Raises ModelNotFound, InvalidRequest for a file that is no model."""
    if not model.endswith(".gguf"):
        with suggestions(model):
            return Registry(settings.models.dir, settings.models.aliases).get(model)
    path = first_part(Path(model).absolute())
    model_id = without_part(path.stem)
    return Registry(settings.models.dir, {model_id: str(path)}).get(model_id)


@contextlib.contextmanager
def suggestions(model: str) -> Iterator[None]:
    """Says of an id that is not found how to get it, or which was meant."""
    try:
        yield
    except errors.ModelNotFound as error:
        known = [*error.details.get("available_models", ()), *catalogue()]
        near = difflib.get_close_matches(model, known, n=1)
        hint = f" To download it: inferno models pull {model}" if model in catalogue() else ""
        hint = hint or (f" Did you mean {near[0]}?" if near else "")
        raise errors.ModelNotFound(f"{error.message}.{hint}", **error.details) from None


def settings_for(
    config_file: Path | None = None, models_dir: Path | None = None, data_dir: Path | None = None, **flags: Any
) -> Settings:
    """Settings with the common flags applied; `flags` are full keys with dots."""
    common = {"models.dir": models_dir and str(models_dir), "data_dir": data_dir and str(data_dir)}
    return load_settings(config_file, {**common, **flags})
