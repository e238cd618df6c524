"""Inferno runs language models on your own hardware.

>>> from inferno import LLM
>>> with LLM("smollm2-135m-instruct") as llm:
...     print(llm.generate("The capital of France is", max_tokens=8, temperature=0).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferno import errors

if TYPE_CHECKING:
    from inferno.llm import LLM
    from inferno.webhooks.signing import verify_webhook

    __version__: str

__all__ = ["LLM", "__version__", "errors", "verify_webhook"]


def __getattr__(name: str) -> Any:
    # Worker processes and the command line start faster without numpy, the engine and the package's metadata.
    if name == "LLM":
        from inferno.engine import openmp

        with openmp.sleeping_soon():
            from inferno.llm import LLM

        return LLM
    if name == "verify_webhook":
        from inferno.webhooks.signing import verify_webhook

        return verify_webhook
    if name == "__version__":
        from importlib.metadata import version

        return version("inferno-server")
    raise AttributeError(f"module 'inferno' has no attribute {name!r}")
