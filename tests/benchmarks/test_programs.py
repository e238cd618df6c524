"""Each program of the benchmarks at least begins: what none of the other tests run must not rot."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks

NOT_OURS = ("benchmarks.test_micro", "benchmarks.peers.openvino_child")  # a test; a program of another environment
MODULES = [module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]


@pytest.mark.parametrize("name", sorted({*MODULES} - {*NOT_OURS}))
def test_it_can_be_imported(name: str) -> None:
    assert importlib.import_module(name).__doc__
