"""Inferno runs language models on your own hardware.

>>> from inferno import LLM
>>> with LLM("smollm2-135m-instruct") as llm:
...     print(llm.generate("The capital of France is", max_tokens=8, temperature=0).text)
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferno.llm import LLM

__all__ = ["LLM", "__version__"]
__version__ = _version("inferno-server")


def __getattr__(name: str) -> Any:
    # The command line and worker processes start faster without numpy and the in-process face.
    if name == "LLM":
        from inferno.llm import LLM

        return LLM
    raise AttributeError(f"module 'inferno' has no attribute {name!r}")
