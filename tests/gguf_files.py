"""Small GGUF files, made byte by byte: a random llama that the engine can run, and every way to be malformed.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# ---- the format -----------------------------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


@dataclass
class Value:
    """A metadata value: its type code and its bytes."""

    kind: int
    raw: bytes


def scalar(kind: int, value: Any) -> Value:
    return Value(kind, text(value) if kind == STRING else struct.pack("<" + _FORMATS[kind], value))


def array(kind: int, values: Iterable[Any], count: int | None = None) -> Value:
    """`count` is what the file claims, when that is not the truth."""
    raws = [scalar(kind, value).raw for value in values]
    return Value(ARRAY, struct.pack("<IQ", kind, len(raws) if count is None else count) + b"".join(raws))


@dataclass
class Tensor:
    """`data` is the bytes in the file; `kind` and `dims` what its description claims; `offset` None: where it is."""

    name: str | bytes
    dims: tuple[int, ...]
    data: bytes
    kind: int = 0
    offset: int | None = None


@dataclass
class Gguf:
    """A file as a value. `n_keys` and `n_tensors` are what the header claims, when that is not the truth."""

    keys: list[tuple[str | bytes, Value]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = 32

    def set(self, key: str, value: Value) -> None:
        self.remove(key)
        self.keys.append((key, value))

    def remove(self, key: str) -> None:
        self.keys = [(name, value) for name, value in self.keys if name != key]

    def header(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        return self.magic + struct.pack("<IQQ", self.version, n_tensors, n_keys)

    def metadata(self) -> bytes:
        return b"".join(text(key) + struct.pack("<I", value.kind) + value.raw for key, value in self.keys)

    def tensor_table(self) -> bytes:
        rows, at = [], 0
        for tensor in self.tensors:
            offset = at if tensor.offset is None else tensor.offset
            dims = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
            rows.append(text(tensor.name) + dims + struct.pack("<IQ", tensor.kind, offset))
            at += len(self._padded(tensor.data))
        return b"".join(rows)

    def to_bytes(self) -> bytes:
        front = self._padded(self.header() + self.metadata() + self.tensor_table())
        return front + b"".join(self._padded(tensor.data) for tensor in self.tensors)

    def _padded(self, raw: bytes) -> bytes:
        return raw + bytes(-len(raw) % self.alignment)


# ---- a model --------------------------------------------------------------------------------------------------------


def tiny_llama(
    *,
    context_train: int = 512,
    tokenizer: str = "gpt2",
    seed: int = 20240229,
    name: str = "Tiny Llama",
    window: int | None = None,
) -> Gguf:
    """A random llama of two layers: some 140,000 float32 weights, the same bytes on every call.

    `tokenizer` is gpt2 (byte-level BPE with a few merges) or llama (SentencePiece with byte tokens). With `window` it
    is a Cohere2 of four layers, three of which see that many tokens.
    """
    n_embd, n_head, n_head_kv, n_ff = 64, 4, 2, 128
    architecture, n_layer = ("llama", 2) if window is None else ("cohere2", 4)
    file = Gguf()
    for key, kind, value in (
        ("general.architecture", STRING, architecture),
        ("general.name", STRING, name),
        ("general.file_type", U32, 0),
        ("tokenizer.ggml.model", STRING, tokenizer),
        ("tokenizer.chat_template", STRING, CHAT_TEMPLATE),
    ):
        file.set(key, scalar(kind, value))
    n_vocab = {"gpt2": _add_byte_bpe, "llama": _add_sentencepiece}[tokenizer](file)
    for key, kind, value in (
        ("context_length", U32, context_train),
        ("embedding_length", U32, n_embd),
        ("block_count", U32, n_layer),
        ("feed_forward_length", U32, n_ff),
        ("attention.head_count", U32, n_head),
        ("attention.head_count_kv", U32, n_head_kv),
        ("attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("rope.dimension_count", U32, n_embd // n_head),
        ("rope.freq_base", F32, 10000.0),
        ("vocab_size", U32, n_vocab),
    ):
        file.set(f"{architecture}.{key}", scalar(kind, value))
    if window is not None:
        file.set("cohere2.attention.sliding_window", scalar(U32, window))
        file.set("cohere2.attention.layer_norm_epsilon", scalar(F32, 1e-5))
        file.set("cohere2.logit_scale", scalar(F32, 1.0))

    random = np.random.default_rng(seed)

    def weights(tensor: str, n_in: int, n_out: int, scale: float) -> None:
        values = random.normal(0.0, scale, (n_out, n_in)).astype("<f4")
        file.tensors.append(Tensor(f"{tensor}.weight", (n_in, n_out), values.tobytes()))

    def norm(tensor: str) -> None:
        file.tensors.append(Tensor(f"{tensor}.weight", (n_embd,), np.ones(n_embd, "<f4").tobytes()))

    n_kv = n_embd // n_head * n_head_kv
    weights("token_embd", n_embd, n_vocab, 1.0)
    for layer in range(n_layer):
        block = f"blk.{layer}."
        norm(block + "attn_norm")
        if window is None:
            norm(block + "ffn_norm")
        for tensor, n_in, n_out in (
            ("attn_q", n_embd, n_embd),
            ("attn_k", n_embd, n_kv),
            ("attn_v", n_embd, n_kv),
            ("attn_output", n_embd, n_embd),
            ("ffn_gate", n_embd, n_ff),
            ("ffn_up", n_embd, n_ff),
            ("ffn_down", n_ff, n_embd),
        ):
            weights(block + tensor, n_in, n_out, n_in**-0.5)
    norm("output_norm")
    if window is None:
        weights("output", n_embd, n_vocab, 0.3)  # logits spread by about 0.3 * sqrt(64): sharp, not constant
    return file


def _gpt2_byte_alphabet() -> list[str]:
    """Byte -> the printable character that stands for it, as in GPT-2's encoder.py (`bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _add_byte_bpe(file: Gguf) -> int:
    space = "\u0120"  # the byte 0x20
    pairs = [
        "t h",
        "th e",
        "i n",
        "e r",
        "a n",
        "o n",
        "r e",
        f"{space} t",
        f"{space} a",
        f"{space} the",
        "an d",
        "l l",
    ]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = _gpt2_byte_alphabet() + [pair.replace(" ", "") for pair in pairs]
    ids = {token: len(tokens) + i for i, token in enumerate(control)}
    file.set("tokenizer.ggml.pre", scalar(STRING, "gpt-2"))
    file.set("tokenizer.ggml.tokens", array(STRING, tokens + control))
    file.set("tokenizer.ggml.token_type", array(I32, [_NORMAL] * len(tokens) + [_CONTROL] * len(control)))
    file.set("tokenizer.ggml.merges", array(STRING, pairs))
    file.set("tokenizer.ggml.bos_token_id", scalar(U32, ids["<|endoftext|>"]))
    file.set("tokenizer.ggml.eos_token_id", scalar(U32, ids["<|im_end|>"]))
    file.set("tokenizer.ggml.add_bos_token", scalar(BOOL, False))
    return len(tokens) + len(control)


def _add_sentencepiece(file: Gguf) -> int:
    space = "\u2581"  # how SentencePiece writes a space
    words = [*"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *".,!?", space, "th", "the", f"{space}the"]
    rows = [("<unk>", _UNKNOWN, 0.0), ("<s>", _CONTROL, 0.0), ("</s>", _CONTROL, 0.0)]
    rows += [(f"<0x{byte:02X}>", _BYTE, 0.0) for byte in range(256)]
    rows += [(word, _NORMAL, -float(rank)) for rank, word in enumerate(reversed(words))]
    rows += [("<|im_start|>", _CONTROL, 0.0), ("<|im_end|>", _CONTROL, 0.0)]
    file.set("tokenizer.ggml.tokens", array(STRING, [token for token, _, _ in rows]))
    file.set("tokenizer.ggml.token_type", array(I32, [kind for _, kind, _ in rows]))
    file.set("tokenizer.ggml.scores", array(F32, [score for _, _, score in rows]))
    file.set("tokenizer.ggml.bos_token_id", scalar(U32, 1))
    file.set("tokenizer.ggml.eos_token_id", scalar(U32, 2))
    file.set("tokenizer.ggml.unknown_token_id", scalar(U32, 0))
    return len(rows)


def write_tiny_llama(path: Path, **options: Any) -> Path:
    """`tiny_llama(**options)` as a file; returns `path`."""
    path.write_bytes(tiny_llama(**options).to_bytes())
    return path


def write_split(directory: Path, name: str, n_parts: int = 2, file: Gguf | None = None) -> list[Path]:
    """`file` (a tiny llama, if none is given) as parts that llama.cpp joins; returns their paths in order."""
    whole = file or tiny_llama()
    each = -(-len(whole.tensors) // n_parts)
    paths = []
    for number in range(n_parts):
        part = Gguf(keys=list(whole.keys) if number == 0 else [])
        part.tensors = whole.tensors[number * each : (number + 1) * each]
        part.set("split.no", scalar(U16, number))
        part.set("split.count", scalar(U16, n_parts))
        part.set("split.tensors.count", scalar(I32, len(whole.tensors)))
        paths.append(directory / f"{name}-{number + 1:05}-of-{n_parts:05}.gguf")
        paths[-1].write_bytes(part.to_bytes())
    return paths


# ---- malformed files ------------------------------------------------------------------------------------------------


def minimal() -> Gguf:
    """The smallest file that the preflight check lets pass: sound, though no model to run."""
    file = Gguf()
    for key, kind, value in (
        ("general.architecture", STRING, "llama"),
        ("llama.context_length", U32, 128),
        ("llama.embedding_length", U32, 32),
        ("llama.block_count", U32, 1),
        ("llama.attention.head_count", U32, 4),
        ("llama.attention.head_count_kv", U32, 2),
        ("tokenizer.ggml.model", STRING, "llama"),
        ("tokenizer.ggml.bos_token_id", U32, 1),
    ):
        file.set(key, scalar(kind, value))
    file.set("tokenizer.ggml.tokens", array(STRING, ["<unk>", "<s>", "<0x0A>", "a"]))
    file.set("tokenizer.ggml.token_type", array(I32, [_UNKNOWN, _CONTROL, _BYTE, _NORMAL]))
    file.set("tokenizer.ggml.scores", array(F32, [0.0, 0.0, 0.0, -1.0]))
    file.tensors = [Tensor("token_embd.weight", (32, 4), bytes(512)), Tensor("output_norm.weight", (32,), bytes(128))]
    return file


_Change = Callable[[Gguf], None]


def _with(key: str, value: Value) -> _Change:
    return lambda file: file.set(key, value)


def _without(key: str) -> _Change:
    return lambda file: file.remove(key)


def _extra(key: str | bytes, value: Value) -> _Change:
    return lambda file: file.keys.append((key, value))


def _set(thing: object, claims: dict[str, Any]) -> None:
    for name, value in claims.items():
        setattr(thing, name, value)


def _header(**claims: Any) -> _Change:
    return lambda file: _set(file, claims)


def _tensor(index: int = 0, **claims: Any) -> _Change:
    return lambda file: _set(file.tensors[index], claims)


def _vocabulary(third: str | bytes) -> _Change:
    return _with("tokenizer.ggml.tokens", array(STRING, ["<unk>", "<s>", third, "a"]))


_U32_ONE = scalar(U32, 1)
_CHANGES: dict[str, _Change] = {
    # header
    "bad_magic": _header(magic=b"GGML"),
    "version_0": _header(version=0),
    "version_1": _header(version=1),
    "version_9": _header(version=9),
    "version_big_endian": _header(version=0x03000000),
    "tensors_2_63": _header(n_tensors=1 << 63),
    "tensors_65537": _header(n_tensors=65_537),
    "tensors_one_more": _header(n_tensors=3),
    "tensors_none": _header(tensors=[]),
    "keys_2_63": _header(n_keys=1 << 63),
    "keys_65537": _header(n_keys=65_537),
    "keys_one_more": _header(n_keys=12),
    # keys and values
    "key_empty": _extra("", _U32_ONE),
    "key_too_long": _extra("k" * 65_536, _U32_ONE),
    "key_not_utf8": _extra(b"\xff\xfe", _U32_ONE),
    "key_twice": _extra("general.architecture", scalar(STRING, "llama")),
    "value_type_13": _extra("x", Value(13, bytes(8))),
    "value_type_2_32": _extra("x", Value((1 << 32) - 1, bytes(8))),
    "bool_2": _extra("x", Value(BOOL, b"\x02")),
    "string_1_gib": _extra("x", Value(STRING, struct.pack("<Q", 1 << 30))),
    "string_2_64": _extra("x", Value(STRING, struct.pack("<Q", (1 << 64) - 1))),
    "string_over_1_mib": _extra("x", scalar(STRING, "s" * ((1 << 20) + 1))),
    "template_over_256_kib": _with("tokenizer.chat_template", scalar(STRING, "t" * ((256 << 10) + 1))),
    "array_of_arrays": _extra("x", Value(ARRAY, struct.pack("<IQ", ARRAY, 1) + array(U8, [1]).raw)),
    "array_type_99": _extra("x", Value(ARRAY, struct.pack("<IQ", 99, 1) + bytes(8))),
    "array_2_30": _extra("x", array(U8, [], 1 << 30)),
    "array_2_63": _extra("x", array(U64, [], 1 << 63)),
    "array_past_the_end": _extra("x", array(F64, [], 1 << 20)),
    "strings_past_the_end": _extra("x", array(STRING, [], 1 << 20)),
    "strings_2_24": _extra("x", array(STRING, [], 1 << 24)),
    "array_string_1_gib": _extra("x", Value(ARRAY, struct.pack("<IQQ", STRING, 1, 1 << 30))),
    "alignment_0": _with("general.alignment", scalar(U32, 0)),
    "alignment_3": _with("general.alignment", scalar(U32, 3)),
    "alignment_2_31": _with("general.alignment", scalar(U32, 1 << 31)),
    "alignment_bool": _with("general.alignment", scalar(BOOL, True)),
    "alignment_text": _with("general.alignment", scalar(STRING, "32")),
    # tensors
    "name_empty": _tensor(name=""),
    "name_64_bytes": _tensor(name="n" * 64),
    "name_1_kib": _tensor(name="n" * 1024),
    "name_twice": _tensor(1, name="token_embd.weight"),
    "dims_none": _tensor(1, dims=()),
    "dims_5": _tensor(1, dims=(32, 1, 1, 1, 1)),
    "dim_zero": _tensor(dims=(32, 0)),
    "dim_negative": _tensor(dims=(32, (1 << 64) - 1)),
    "dims_overflow_32": _tensor(dims=(1 << 16, 1 << 16, 1 << 16, 1 << 16)),
    "dims_overflow_64": _tensor(dims=(1 << 33, 1 << 33)),
    "bytes_overflow": _tensor(dims=(1 << 62,)),
    "padding_wraps": _tensor(dims=((1 << 62) - 1,)),
    "type_removed": _tensor(kind=4),
    "type_31": _tensor(kind=31),
    "type_99": _tensor(kind=99),
    "rows_not_whole_blocks": _tensor(dims=(33, 4), kind=8),
    "offset_unaligned": _tensor(1, offset=513),
    "offset_past_the_end": _tensor(1, offset=1 << 20),
    "offset_2_64": _tensor(1, offset=(1 << 64) - 32),
    "tensors_overlap": _tensor(1, offset=480),
    "tensors_same_place": _tensor(1, offset=0),
    "data_too_short": _tensor(dims=(32, 4096)),
    # what the engine takes for granted
    "architecture_missing": _without("general.architecture"),
    "architecture_number": _with("general.architecture", _U32_ONE),
    "architecture_odd": _with("general.architecture", scalar(STRING, "../%s%n")),
    "block_count_missing": _without("llama.block_count"),
    "block_count_0": _with("llama.block_count", scalar(U32, 0)),
    "block_count_513": _with("llama.block_count", scalar(U32, 513)),
    "block_count_negative": _with("llama.block_count", scalar(I32, -1)),
    "block_count_text": _with("llama.block_count", scalar(STRING, "1")),
    "block_count_bool": _with("llama.block_count", scalar(BOOL, True)),
    "context_length_missing": _without("llama.context_length"),
    "context_length_0": _with("llama.context_length", scalar(U32, 0)),
    "context_length_2_32": _with("llama.context_length", scalar(U32, (1 << 32) - 1)),
    "embedding_length_missing": _without("llama.embedding_length"),
    "embedding_length_0": _with("llama.embedding_length", scalar(U32, 0)),
    "embedding_length_2_31": _with("llama.embedding_length", scalar(U32, 1 << 31)),
    "head_count_huge": _with("llama.attention.head_count", scalar(U32, 1 << 20)),
    "head_count_wrong_length": _with("llama.attention.head_count", array(U32, [4, 4])),
    "head_count_513_layers": _with("llama.attention.head_count", array(U32, [4] * 513)),
    "head_count_kv_no_divisor": _with("llama.attention.head_count_kv", scalar(U32, 3)),
    "experts_1025": _with("llama.expert_count", scalar(U32, 1025)),
    "experts_none_used": _with("llama.expert_count", scalar(U32, 8)),
    "experts_too_many_used": _with("llama.expert_used_count", scalar(U32, 2)),
    "epsilon_negative": _with("llama.attention.layer_norm_rms_epsilon", scalar(F32, -1e-5)),
    "epsilon_nan": _with("llama.attention.layer_norm_rms_epsilon", scalar(F32, float("nan"))),
    "nextn_layers": _with("llama.nextn_predict_layers", scalar(U32, 2)),
    "rope_scaling_unknown": _with("llama.rope.scaling.type", scalar(STRING, "sideways")),
    "tokenizer_missing": _without("tokenizer.ggml.model"),
    "tokenizer_number": _with("tokenizer.ggml.model", _U32_ONE),
    "vocabulary_missing": _without("tokenizer.ggml.tokens"),
    "vocabulary_empty": _with("tokenizer.ggml.tokens", array(STRING, [])),
    "vocabulary_numbers": _with("tokenizer.ggml.tokens", array(I32, [1, 2, 3, 4])),
    "vocabulary_text": _with("tokenizer.ggml.tokens", scalar(STRING, "a")),
    "vocabulary_repeats": _with("tokenizer.ggml.tokens", array(STRING, ["<unk>", "<s>", "<0x0A>", "<s>"])),
    "vocabulary_repeats_to_nul": _with("tokenizer.ggml.tokens", array(STRING, ["<unk>", "<s>", "<0x0A>", "<s>\0"])),
    "vocabulary_repeats_unnamed": _with("tokenizer.ggml.tokens", array(STRING, ["", "<s>", "<0x0A>", "[EMPTY_0]"])),
    "byte_token_negative": _vocabulary("<0x-1>"),
    "byte_token_not_hex": _vocabulary("<0xZZ>"),
    "byte_token_long": _vocabulary("<0x100>"),
    "byte_token_short": _vocabulary("<"),
    "scores_short": _with("tokenizer.ggml.scores", array(F32, [0.0])),
    "scores_text": _with("tokenizer.ggml.scores", array(STRING, ["", "", "", ""])),
    "scores_scalar": _with("tokenizer.ggml.scores", scalar(F32, 0.0)),
    "token_type_short": _with("tokenizer.ggml.token_type", array(I32, [1, 1, 1])),
    "token_type_float": _with("tokenizer.ggml.token_type", array(F32, [1, 1, 1, 1])),
    "merges_numbers": _with("tokenizer.ggml.merges", array(U64, [1])),
    "bos_outside": _with("tokenizer.ggml.bos_token_id", scalar(U32, 4)),
    "eos_negative": _with("tokenizer.ggml.eos_token_id", scalar(I32, -2)),
    "eos_text": _with("tokenizer.ggml.eos_token_id", scalar(STRING, "1")),
}


def _changed(change: _Change) -> bytes:
    file = minimal()
    change(file)
    return file.to_bytes()


def _truncated() -> dict[str, bytes]:
    file = minimal()
    whole, header, metadata = file.to_bytes(), len(file.header()), len(file.metadata())
    table = len(file.tensor_table())
    ends = {
        "empty": 0,
        "truncated_in_magic": 2,
        "truncated_after_magic": 4,
        "truncated_in_header": header - 1,
        "truncated_after_header": header,
        "truncated_in_key": header + 12,
        "truncated_in_vocabulary": header + metadata // 2,
        "truncated_in_metadata": header + metadata - 1,
        "truncated_after_metadata": header + metadata,
        "truncated_in_table": header + metadata + table // 2,
        "truncated_after_table": header + metadata + table,
        "truncated_in_data": len(whole) - 1,
    }
    return {name: whole[:end] for name, end in ends.items()}


def malformed() -> dict[str, bytes]:
    """Kind -> a file that must be refused."""
    return {**_truncated(), **{name: _changed(change) for name, change in _CHANGES.items()}}


def write_malformed(kind: str, path: Path) -> Path:
    """The malformed file `kind` of `malformed()`; returns `path`."""
    path.write_bytes(_truncated()[kind] if kind in _truncated() else _changed(_CHANGES[kind]))
    return path
