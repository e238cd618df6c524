"""The guide's examples run as they stand, one after the other."""

import re
import shutil
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "python.md"


def test_examples_run(
    smollm2: Path,
    embed_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(smollm2, tmp_path / "smollm2-135m-instruct.gguf")
    shutil.copy(embed_model, tmp_path / "all-minilm-l6-v2.gguf")
    monkeypatch.setenv("INFERNO_MODELS_DIR", str(tmp_path))
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 9
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    printed = capsys.readouterr().out
    assert " Paris" in printed
    assert "(2, 384) float32 0." in printed
    assert "Did you mean max_tokens?" in printed
    names["llm"].close()  # type: ignore[attr-defined]
