"""llama.cpp's own converter, in the environment that `inferno models convert` makes for it: gigabytes, so only
`make test-converter` runs this."""

from pathlib import Path

import numpy as np
import pytest
from inferno import LLM
from inferno.config import cache_dir
from inferno.models.convert import convert
from inferno.models.converter import fetch, locate

from tests.hugging_face import tensors, write_tiny_llama

pytestmark = pytest.mark.converter


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["auto", "f32", "bf16", "q8_0"])
def test_a_model_is_converted(tmp_path: Path, kind: str) -> None:
    converter = locate(cache_dir())
    fetch(converter)
    directory = write_tiny_llama(tmp_path / "tiny", shards=2)
    target = tmp_path / "models" / "tiny.gguf"
    convert(directory, target, kind, target.parent, converter)
    with LLM(target, context_size=64, parallel=1) as llm:
        assert llm.info.quantization.startswith({"auto": "F16", "f32": "all F32"}.get(kind, kind.upper()))
        assert llm.info.n_params == sum(np.size(values) for values in tensors().values())
        assert llm.generate("the thing", max_tokens=4, temperature=0, ignore_eos=True).usage.completion_tokens == 4
