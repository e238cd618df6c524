"""Inferno runs language models on your own hardware.

>>> from inferno import LLM
>>> with LLM("smollm2-135m-instruct") as llm:
...     print(llm.generate("The capital of France is", max_tokens=8, temperature=0).text)
"""

from importlib.metadata import version as _version

__version__ = _version("inferno-server")
