"""A Hugging Face directory made byte by byte: a random llama of two layers with a SentencePiece vocabulary."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_N_EMBD, _N_HEAD, _N_HEAD_KV, _N_FF, _N_LAYER = 64, 4, 2, 128, 2


def write_tiny_llama(directory: Path, *, shards: int = 1) -> Path:
    """With weights of 16 bits in `shards` files, and an index when there are several; returns `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    pieces = _pieces()
    (directory / "tokenizer.model").write_bytes(_sentencepiece(pieces))
    (directory / "config.json").write_text(json.dumps(_config(len(pieces))))
    weights = tensors()
    if shards == 1:
        _write_safetensors(directory / "model.safetensors", weights)
        return directory
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    places = {name: names[index % shards] for index, name in enumerate(weights)}
    for file in names:
        _write_safetensors(directory / file, {name: weights[name] for name, place in places.items() if place == file})
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return directory


def _config(n_vocab: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _N_EMBD,
        "intermediate_size": _N_FF,
        "num_hidden_layers": _N_LAYER,
        "num_attention_heads": _N_HEAD,
        "num_key_value_heads": _N_HEAD_KV,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": n_vocab,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float16",
        "tie_word_embeddings": False,
    }


def tensors() -> dict[str, np.ndarray]:
    """The weights, by their names."""
    n_vocab = len(_pieces())
    random = np.random.default_rng(20240229)
    n_kv = _N_EMBD // _N_HEAD * _N_HEAD_KV

    def weights(n_out: int, n_in: int, scale: float) -> np.ndarray:
        return random.normal(0.0, scale, (n_out, n_in)).astype("<f2")

    found = {"model.embed_tokens.weight": weights(n_vocab, _N_EMBD, 1.0)}
    for layer in range(_N_LAYER):
        block = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{block}{norm}.weight"] = np.ones(_N_EMBD, "<f2")
        for name, n_out, n_in in (
            ("self_attn.q_proj", _N_EMBD, _N_EMBD),
            ("self_attn.k_proj", n_kv, _N_EMBD),
            ("self_attn.v_proj", n_kv, _N_EMBD),
            ("self_attn.o_proj", _N_EMBD, _N_EMBD),
            ("mlp.gate_proj", _N_FF, _N_EMBD),
            ("mlp.up_proj", _N_FF, _N_EMBD),
            ("mlp.down_proj", _N_EMBD, _N_FF),
        ):
            found[f"{block}{name}.weight"] = weights(n_out, n_in, n_in**-0.5)
    found["model.norm.weight"] = np.ones(_N_EMBD, "<f2")
    found["lm_head.weight"] = weights(n_vocab, _N_EMBD, 0.3)
    return found


def _write_safetensors(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    header, at = {}, 0
    for name, values in weights.items():
        header[name] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"".join(values.tobytes() for values in weights.values()))


def _pieces() -> list[tuple[str, float, int]]:
    space = "\u2581"  # how SentencePiece writes a space
    words = [*"abcdefghijklmnopqrstuvwxyz", *".,!?", space, "th", "the", f"{space}the"]
    rows = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    rows += [(f"<0x{byte:02X}>", 0.0, _BYTE) for byte in range(256)]
    return rows + [(word, -float(rank), _NORMAL) for rank, word in enumerate(reversed(words))]


def _sentencepiece(pieces: Iterable[tuple[str, float, int]]) -> bytes:
    """The protocol buffer `ModelProto`: pieces (1) and a trainer_spec (2) of a BPE with byte fallback."""
    rows = [
        _message(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind)
        for piece, score, kind in pieces
    ]
    return b"".join(_message(1, row) for row in rows) + _message(2, _number(3, 2) + _number(35, 1))


def _message(field: int, raw: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    head, rest = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])
