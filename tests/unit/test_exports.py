import subprocess
import sys

import inferno
import pytest


def test_what_is_exported_is_there_and_in_order() -> None:
    assert inferno.__all__ == sorted(inferno.__all__)
    assert all(getattr(inferno, name) is not None for name in inferno.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        inferno.nope  # noqa: B018


def test_a_worker_process_imports_little() -> None:
    heavy = "{'numpy', 'inferno.llm', 'inferno.config', 'importlib.metadata', 'httpx', 'starlette'}"
    code = f"import sys, inferno.engine.worker_main; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
