"""The in-process face, on the real engine."""

import _thread
import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inferno import LLM, _core, errors
from inferno.request import TokenLogprob

from tests.gguf_files import BOOL, U32, scalar, tiny_llama, write_split

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def llm(tiny_model: Path) -> Iterator[LLM]:
    with LLM(tiny_model, context_size=256, parallel=4, queue_size=4) as llm:
        yield llm


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> Iterator[LLM]:
    with LLM(smollm2, context_size=8192, parallel=4) as llm:
        yield llm


@pytest.fixture(scope="module")
def embedder(embed_model: Path) -> Iterator[LLM]:
    with LLM(embed_model) as llm:
        yield llm


#: The real model is busy with it for ten seconds and more: whoever gives it up comes in time.
LONG: dict[str, Any] = {"max_tokens": 8000, "ignore_eos": True}


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.acceptance("I3")
def test_the_capital_of_france(smol: LLM) -> None:
    result = smol.generate("The capital of France is", max_tokens=8, temperature=0)
    assert result.text.startswith(" Paris")
    assert result.choices[0].finish_reason == "length"
    assert result.usage.completion_tokens == 8
    assert result.usage.prompt_tokens == len(smol.tokenize("The capital of France is"))
    assert result.choices[0].timings.decode_ms > 0


@pytest.mark.acceptance("O2")
def test_chat_uses_the_models_template(smol: LLM) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    result = smol.chat(messages, max_tokens=12, temperature=0)
    assert "Paris" in result.text
    assert "<|im_end|>" not in result.text
    assert "".join(smol.chat_stream(messages, max_tokens=12, temperature=0)) == result.text


@pytest.mark.acceptance("E5")
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"seed": 5}, {"seed": 5, "stop": ["e"]}])
def test_pieces_add_up_to_the_text(llm: LLM, sampling: dict[str, object]) -> None:
    stream = llm.stream("Once upon a time", max_tokens=40, **sampling)
    joined = "".join(stream)
    result = llm.generate("Once upon a time", max_tokens=40, **sampling)
    assert joined == result.text == stream.result().text
    assert stream.result().choices[0].finish_reason == result.choices[0].finish_reason


@pytest.mark.acceptance("I4")
def test_stop_strings_are_not_part_of_the_text(smol: LLM) -> None:
    result = smol.generate("1, 2, 3, 4,", max_tokens=30, temperature=0, stop=[" 7"])
    assert result.choices[0].finish_reason == "stop"
    assert result.choices[0].stop_match == " 7"
    assert " 7" not in result.text
    assert " 6" in result.text


@pytest.mark.acceptance("I2")
def test_a_seed_fixes_each_choice(llm: LLM) -> None:
    first = llm.generate("abc", n=3, seed=11, max_tokens=12)
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    again = llm.generate("abc", n=3, seed=11, max_tokens=12)
    assert [choice.text for choice in first.choices] == [choice.text for choice in again.choices]
    assert first.choices[1].text == llm.generate("abc", seed=12, max_tokens=12).text
    assert len({choice.text for choice in first.choices}) > 1
    assert first.usage.prompt_tokens == len(llm.tokenize("abc"))


def test_a_list_is_a_batch_in_order_however_long(llm: LLM) -> None:
    prompts = [f"number {i}" for i in range(40)]  # the queue holds four
    results = llm.generate(prompts, max_tokens=3, temperature=0)
    assert [result.text for result in results] == [
        llm.generate(prompt, max_tokens=3, temperature=0).text for prompt in prompts
    ]


def test_a_batch_with_a_bad_prompt_says_which_and_leaves_nothing_behind(llm: LLM) -> None:
    with pytest.raises(errors.ContextLengthExceeded) as caught:
        llm.generate(["a", "b", "word " * 500], max_tokens=200)
    assert caught.value.details["prompt_index"] == 2
    assert caught.value.details["context_size"] == 256
    assert llm.generate("a", max_tokens=1).usage.completion_tokens == 1


def test_token_ids_are_a_prompt(llm: LLM) -> None:
    tokens = llm.tokenize("hello")
    assert (
        llm.generate(tokens, max_tokens=5, temperature=0).text
        == llm.generate("hello", max_tokens=5, temperature=0).text
    )
    assert len(llm.generate([tokens, tokens], max_tokens=2)) == 2


def test_logprobs(llm: LLM) -> None:
    choice = llm.generate("hello", max_tokens=4, temperature=0, logprobs=3, ignore_eos=True).choices[0]
    assert len(choice.logprobs) == 4
    for item in choice.logprobs:
        assert isinstance(item, TokenLogprob)
        assert item.logprob <= 0
        assert len(item.top) == 3
        assert item.token == item.top[0].token


@pytest.mark.acceptance("I2", "I4")
def test_a_prompt_may_fill_the_context_but_for_one_token(llm: LLM) -> None:
    token = llm.tokenize("a")[-1]
    result = llm.generate([token] * 255, max_tokens=10, ignore_eos=True)
    assert result.usage.completion_tokens == 1
    assert result.choices[0].finish_reason == "length"
    with pytest.raises(errors.ContextLengthExceeded):
        llm.generate([token] * 256)


@pytest.mark.acceptance("I5")
def test_a_text_that_cannot_fit_is_not_even_tokenised(llm: LLM) -> None:
    spaces = " " * 10_000_000
    for refused in (lambda: llm.generate(spaces), lambda: llm.chat([{"role": "user", "content": spaces}])):
        with pytest.raises(errors.ContextLengthExceeded, match=r"has 1000000[04] bytes but the context holds 256 tok"):
            refused()


def test_cancelling_a_stream_keeps_what_there_is(smol: LLM) -> None:
    with smol.stream("Once", **LONG) as stream:
        first = next(stream)
        stream.cancel()
        result = stream.result()
    assert result.text.startswith(first)
    assert result.choices[0].finish_reason == "cancelled"


def test_dropping_a_stream_frees_its_slot(llm: LLM) -> None:
    for _ in range(20):  # more than slots and queue places
        stream = llm.stream("Once", max_tokens=200, ignore_eos=True)
        next(stream)
        del stream
        gc.collect()
        assert llm.generate("a", max_tokens=1).usage.completion_tokens == 1


def test_a_deadline(llm: LLM) -> None:
    with pytest.raises(errors.RequestTimeout):
        llm.generate("Once", max_tokens=200, ignore_eos=True, timeout_s=1e-6)


def test_threads_share_the_engine(llm: LLM) -> None:
    expected = llm.generate("Once", max_tokens=20, temperature=0).text
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(llm.generate("Once", max_tokens=20, temperature=0).text))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [expected] * 4


# ---- asynchronous ---------------------------------------------------------------------------------------------------


async def test_asynchronous_twins_say_the_same(llm: LLM) -> None:
    sampling = {"max_tokens": 20, "temperature": 0}
    messages = [{"role": "user", "content": "hi"}]
    text, chat = llm.generate("Once", **sampling).text, llm.chat(messages, **sampling).text
    assert (await llm.agenerate("Once", **sampling)).text == text
    assert [result.text for result in await llm.agenerate(["Once"] * 20, **sampling)] == [text] * 20
    assert (await llm.achat(messages, **sampling)).text == chat
    assert "".join([piece async for piece in llm.astream("Once", **sampling)]) == text
    stream = llm.achat_stream(messages, **sampling)
    assert (await stream.result()).text == chat


async def test_requests_of_one_loop_run_together(llm: LLM) -> None:
    results = await asyncio.gather(*(llm.agenerate(f"{i}", max_tokens=10, ignore_eos=True) for i in range(4)))
    assert [result.usage.completion_tokens for result in results] == [10] * 4


async def test_leaving_an_asynchronous_stream_cancels(smol: LLM) -> None:
    async with smol.astream("Once", **LONG) as stream:
        async for _ in stream:
            break
    assert (await stream.result()).choices[0].finish_reason == "cancelled"


def test_a_loop_and_threads_side_by_side(llm: LLM) -> None:
    expected = llm.generate("Once", max_tokens=20, temperature=0).text
    texts: list[str] = []

    def in_loop() -> None:
        texts.append(asyncio.run(llm.agenerate("Once", max_tokens=20, temperature=0)).text)  # type: ignore[arg-type]

    threads = [threading.Thread(target=in_loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    texts.append(llm.generate("Once", max_tokens=20, temperature=0).text)
    for thread in threads:
        thread.join()
    assert texts == [expected] * 3


# ---- vectors and tokens ---------------------------------------------------------------------------------------------


@pytest.mark.acceptance("B1", "B2")
def test_vectors_have_length_one_and_mean_something(embedder: LLM) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on the rug.", "The stock market fell today."]
    vectors = embedder.embed(texts)
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.4 > vectors[0] @ vectors[2]


def test_a_vector_does_not_depend_on_its_neighbours(embedder: LLM) -> None:
    texts = [f"text number {i}" for i in range(200)]
    together = embedder.embed(texts)
    assert together.shape == (200, 384)
    alone = embedder.embed(texts[137])
    assert alone.shape == (1, 384)
    assert together[137] @ alone[0] > 0.999


def test_tokens_that_see_both_ways_see_all_of_a_long_text(tmp_path: Path) -> None:
    file = tiny_llama(context_train=1024)
    file.set("llama.attention.causal", scalar(BOOL, False))
    file.set("llama.pooling_type", scalar(U32, 2))  # the first token's
    path = tmp_path / "embedder.gguf"
    path.write_bytes(file.to_bytes())
    with LLM(path) as llm:
        ends_with_z, ends_with_y = llm.embed(["x" * 800 + "z" * 100, "x" * 800 + "y" * 100])
    assert ends_with_z @ ends_with_y < 0.9999


async def test_vectors_asynchronously(embedder: LLM) -> None:
    there, here = await embedder.aembed(["a", "b"]), embedder.embed(["a", "b"])
    assert (there * here).sum(axis=1) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("texts", "field"), [([], "input"), ("", "input[0]"), (["a", ""], "input[1]")])
def test_nothing_has_no_vector(embedder: LLM, texts: str | list[str], field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        embedder.embed(texts)
    assert caught.value.field == field


@pytest.mark.acceptance("B2")
def test_a_text_that_is_too_long_is_not_cut(embedder: LLM) -> None:
    with pytest.raises(errors.ContextLengthExceeded) as caught:
        embedder.embed(["fine", "word " * 5000])
    assert caught.value.field == "input[1]"


def test_an_embedding_model_does_not_generate(embedder: LLM) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        embedder.generate("a")
    assert caught.value.field == "model"


def test_tokens_and_back(smol: LLM) -> None:
    text = "Grüße, 世界! 🙂"
    assert smol.detokenize(smol.tokenize(text)) == text
    assert smol.tokenize("<|im_end|>", parse_special=True) != smol.tokenize("<|im_end|>", parse_special=False)


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.acceptance("I2")
@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"max_token": 3}, "max_token"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": "x"}, "top_p"),
        ({"top_p": True}, "top_p"),
        ({"top_p": 1j}, "top_p"),
        ({"top_k": True}, "top_k"),
        ({"stop": [""]}, "stop"),
        ({"n": 9}, "n"),
        ({"timeout_s": -1}, "timeout"),
    ],
)
def test_bad_sampling_names_the_field(llm: LLM, sampling: dict[str, object], field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        llm.generate("a", **sampling)  # type: ignore[call-overload]
    assert (caught.value.field or "").startswith(field)


def test_a_misspelt_field_gets_a_suggestion(llm: LLM) -> None:
    with pytest.raises(errors.InvalidRequest, match="Did you mean max_tokens"):
        llm.generate("a", max_token=3)


def test_numbers_may_be_numpys(llm: LLM) -> None:
    tokens = [5, 6, 7]
    expected = llm.generate(tokens, max_tokens=5, temperature=0.5, seed=3).text
    sampling = {"max_tokens": np.int64(5), "temperature": np.float32(0.5), "seed": np.uint8(3)}
    assert llm.generate(np.array(tokens), **sampling).text == expected  # type: ignore[call-overload]
    assert llm.generate(list(np.array(tokens)), **sampling).text == expected
    assert [result.text for result in llm.generate(np.array([tokens] * 2), **sampling)] == [expected] * 2


@pytest.mark.parametrize("prompt", ["", [["a"]], [3.5], [None], None, 5, b"ab", [b"ab"], {5: 6}])
def test_bad_prompts(llm: LLM, prompt: object) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        llm.generate(prompt)  # type: ignore[call-overload]
    assert caught.value.field == "prompt"


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        (["hi"], "messages[0]"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": 1, "content": ""}], "messages[0].role"),
    ],
)
def test_bad_messages(llm: LLM, messages: object, field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        llm.chat(messages)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_bad_options(tiny_model: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="Did you mean batch_size"):
        LLM(tiny_model, batchsize=3)
    with pytest.raises(errors.InvalidRequest) as caught:
        LLM(tiny_model, context_size=0)
    assert caught.value.field == "context_size"


# ---- loading and closing --------------------------------------------------------------------------------------------


def test_a_model_is_found_by_id(tiny_model: Path) -> None:
    with LLM("tiny", models_dir=tiny_model.parent, context_size=64, parallel=1) as llm:
        assert llm.id == "tiny"
        assert repr(llm) == f"LLM('tiny', {llm.info.description!r}, context_size=64)"
        assert llm.stats().parallel == 1


@pytest.mark.acceptance("M4")
@pytest.mark.parametrize("given", [{}, {"context_size": 100_000}])
def test_a_context_is_no_larger_than_what_the_model_was_trained_for(tiny_model: Path, given: dict[str, int]) -> None:
    with LLM(tiny_model, parallel=1, **given) as llm:
        assert llm.context_size == llm.info.context_train == 512


def test_a_step_may_be_a_single_token(tiny_model: Path) -> None:
    texts = set()
    for batch_size in (1, 2, 512):
        with LLM(tiny_model, context_size=64, parallel=1, batch_size=batch_size) as llm:
            texts.add(llm.generate("the and", max_tokens=8, temperature=0).text)
    assert len(texts) == 1


def test_a_missing_model_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelNotFound, match="inferno models pull nope"):
        LLM("nope", models_dir=tmp_path)
    with pytest.raises(errors.ModelNotFound, match=r"There is no file 'nope\.gguf'"):
        LLM(tmp_path / "nope.gguf")


def test_any_part_of_a_split_model_is_the_model(tiny_model: Path, tmp_path: Path) -> None:
    parts = write_split(tmp_path, "big", 3)
    texts = []
    for path in (tiny_model, *parts):
        with LLM(path, context_size=64, parallel=1, threads=1) as llm:
            texts.append(llm.generate("hello", max_tokens=4, temperature=0).text)
    assert (texts, llm.id) == ([texts[0]] * 4, "big")
    parts[1].unlink()
    for path in parts:
        with pytest.raises(errors.InvalidRequest, match=r"there is no big-00002-of-00003\.gguf"):
            LLM(path)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(errors.InvalidRequest):
        LLM(tmp_path / "x.gguf")


def test_progress_may_stop_a_load(tiny_model: Path) -> None:
    seen: list[float] = []
    LLM(tiny_model, context_size=64, progress=lambda fraction: seen.append(fraction) is None).close()
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    with pytest.raises(errors.InfernoError):
        LLM(tiny_model, context_size=64, progress=lambda fraction: False)


def test_ctrl_c_stops_a_load(smollm2: Path) -> None:
    loading: list[bool] = []

    def interrupt(*_: object) -> None:
        loading.append(any(path.resolve() == smollm2.resolve() for path in Path("/proc/self/fd").iterdir()))
        raise KeyboardInterrupt

    def press(gate: threading.Lock) -> None:
        with gate:
            _thread.interrupt_main()

    def load(gate: threading.Lock) -> None:
        thread = threading.Thread(target=press, args=(gate,))
        thread.start()
        gate.release()
        _core.Engine(str(smollm2))
        thread.join()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        for _ in range(20):  # the thread may come too early or too late
            gate = threading.Lock()
            gate.acquire()
            with pytest.raises(KeyboardInterrupt):
                load(gate)
            if loading[-1]:
                break
    finally:
        signal.signal(signal.SIGINT, before)
    assert loading[-1]


def test_after_close(tiny_model: Path) -> None:
    llm = LLM(tiny_model, context_size=64)
    stream = llm.stream("Once", max_tokens=60, ignore_eos=True)
    llm.close()
    llm.close()
    assert stream.result().choices[0].finish_reason in ("cancelled", "length")
    with pytest.raises(errors.ServiceUnavailable):
        llm.generate("a")
    with pytest.raises(errors.ServiceUnavailable):
        llm.tokenize("a")
    assert "tiny" in repr(llm)


def test_closing_with_grace_lets_texts_end(tiny_model: Path) -> None:
    llm = LLM(tiny_model, context_size=64)
    stream = llm.stream("Once", max_tokens=20, ignore_eos=True)
    llm.close(grace_s=30)
    assert stream.result().choices[0].finish_reason == "length"
    assert stream.result().usage.completion_tokens == 20


_FORKING = """
import os, signal, sys
from inferno import LLM, errors

llm = LLM(sys.argv[1], context_size=64)
stream = llm.stream("Once", max_tokens=40, ignore_eos=True)
if child := os.fork():
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, stream.result().usage.completion_tokens)
else:
    signal.alarm(60)
    try:
        llm.generate("a")
    except errors.ServiceUnavailable:
        del stream
        llm.close()
        del llm
        sys.exit(7)
"""


def test_a_forked_process_is_refused_and_leaves_the_model_to_its_parent(tiny_model: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", _FORKING, str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "40"]
