"""Beginnings of texts that outlive the engine, on the real model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from inferno import LLM, errors
from inferno.engine.worker import WorkerEngine
from inferno.request import Request, TokenPrompt

PROMPT = [random.Random(3).randrange(1000, 40000) for _ in range(300)]


def run(model: Path, directory: Path, **options: Any) -> tuple[int, str]:
    """(tokens of the prompt that were there, the text) of an engine of its own."""
    with LLM(model, context_size=512, parallel=2, prefix_store_path=str(directory), **options) as llm:
        result = llm.generate(PROMPT, max_tokens=12, temperature=0)
        return result.usage.cached_tokens, result.text


def test_a_prompt_is_found_again_by_the_next_engine(smollm2: Path, tmp_path: Path) -> None:
    directory = tmp_path / "prefixes"
    cached, text = run(smollm2, directory)
    assert cached == 0
    assert run(smollm2, directory) == (256, text)  # whole blocks of 64
    (file,) = directory.iterdir()
    assert (file.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o600, 0o700)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run(smollm2, directory) == (0, text)  # and it is written anew
    assert run(smollm2, directory) == (256, text)


def test_other_options_and_models_have_their_own(smollm2: Path, tiny_model: Path, tmp_path: Path) -> None:
    run(smollm2, tmp_path)
    assert run(smollm2, tmp_path, cache_type_k="q8_0")[0] == 0
    changed = tmp_path / "changed.gguf"
    content = bytearray(smollm2.read_bytes())
    content[-1] ^= 1  # of the last tensor
    changed.write_bytes(content)
    assert run(changed, tmp_path)[0] == 0
    assert len(list(tmp_path.glob("*.prefixes"))) == 3
    assert run(smollm2, tmp_path)[0] == 256


@pytest.mark.anyio
async def test_a_worker_keeps_what_tenants_asked_apart(smollm2: Path, tmp_path: Path) -> None:
    async def cached(salt: int) -> int:
        options = {"context_size": 512, "parallel": 2, "prefix_store_path": str(tmp_path)}
        engine = await WorkerEngine.start(str(smollm2), options)
        request = Request(
            model="m", prompts=[TokenPrompt(PROMPT)], sampling={"max_tokens": 1, "temperature": 0}, cache_salt=salt
        )
        result = await (await engine.submit(request)).result()
        await engine.close(grace_s=10)
        return result.usage.cached_tokens

    assert [await cached(salt) for salt in (1, 2, 1, 2)] == [0, 0, 256, 256]


@pytest.mark.parametrize(
    "options", [{"prefix_store_mb": 0}, {"prefix_cache": False}, {"prefix_store_path": "/proc/none"}]
)
def test_where_nothing_can_be_kept(smollm2: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        LLM(smollm2, **{"prefix_store_path": str(tmp_path), **options})
    assert caught.value.field == "prefix_store_path"
