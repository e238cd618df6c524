"""What deploy/ holds, parsed, and the program's own word on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from inferno.config import Settings, all_settings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deploying.md").read_text()

#: What a server may take to stop, besides requests that go on for `server.drain_s`: letting go of its models.
LETTING_GO_S = 10


def parsed(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text())


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, its text) of each, lines joined."""
    lines = (DEPLOY / "docker" / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def image_environment() -> dict[str, str]:
    """What the image sets."""
    pairs = " ".join(rest for word, rest in dockerfile() if word == "ENV").split()
    return dict(pair.split("=", 1) for pair in pairs)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """What a server with these variables runs on. Each INFERNO_... is a setting's; raises InvalidRequest for values
    that a server would not start with."""
    ours = {name: value for name, value in environ.items() if name.startswith("INFERNO_")}
    known = {name for setting in all_settings().values() for name in (setting.env, setting.full_env)}
    assert ours.keys() <= known | {"INFERNO_CONFIG"}
    return load_settings(environ={"XDG_CONFIG_HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent", **ours})


def longest_stop_s(settings: Settings) -> float:
    """Requests drain, then workers get the same time for what they still have."""
    return 2 * settings.server.drain_s + LETTING_GO_S


def seconds(text: str) -> int:
    """Of `90s` or `5m`."""
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]
