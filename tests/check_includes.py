"""Checks that the rooms of csrc/ know each other in one direction, and llama.cpp only where they may."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent / "csrc"
INCLUDE = re.compile(r'^#include [<"]([^>"]+)[>"]', re.MULTILINE)

#: From the top down: a file may include files of its own row and of rows below it.
LAYERS = (
    {"bindings"},
    {"engine"},
    {"scheduler", "chat", "grammar", "draft_model"},
    {"compiled_grammar"},
    {"grammar_automaton", "token_trie", "json_schema"},
    {"gbnf", "json_pattern", "json_range", "json_shape"},
    {"gbnf_writer"},
    {"prefix_cache", "waiting_queue", "step_cost", "model", "model_info", "memory_estimate", "perplexity", "quantize"},
    {"importance_matrix", "placement", "prefix_file"},
    {"tensor_list"},
    {"llama_loading", "load_mode", "devices", "vocabulary", "kv_state", "prefix_index", "prefix_store"},
    {"backends", "software_devices", "processors", "content_hash", "host_buffers"},
    {"sequence"},
    {"sampler", "candidates", "text_stream", "channel", "drafter", "prompt_lookup", "speculation"},
    {"batch"},
    {"event", "params", "error"},
)
#: Matrix products, a part of llama.cpp as it were: they know ggml and nothing of ours.
KERNELS = "kernels"
#: model.h is an interface without llama.cpp in it, which the rooms below the model talk to.
INTERFACES = {"model", "sampler"}
MAY_KNOW_LLAMA = {
    *("model", "model_info", "placement", "devices", "perplexity", "quantize", "tensor_list", "importance_matrix"),
    *("kv_state", "llama_loading", "load_mode", "vocabulary", "chat", "backends", "host_buffers", "prefix_file"),
}
LLAMA = re.compile(r"(llama|ggml|gguf)[\w-]*\.h$|^common/")


def problems() -> list[str]:
    rank = {name: index for index, row in enumerate(LAYERS) for name in row}
    found = []
    for path in sorted(CSRC.glob("*.[hc]*")):
        if path.stem not in rank:
            found.append(f"{path.name}: not in the list of rooms")
            continue
        for included in INCLUDE.findall(path.read_text()):
            stem = Path(included).stem
            if stem in rank and stem not in INTERFACES and rank[stem] < rank[path.stem]:
                found.append(f"{path.name}: includes {included}, which is above it")
            if stem not in rank and LLAMA.search(included) and path.stem not in MAY_KNOW_LLAMA:
                found.append(f"{path.name}: must not know {included}")
    own = {path.stem for path in (CSRC / KERNELS).glob("*.[hc]*")}
    for path in sorted((CSRC / KERNELS).glob("*.[hc]*")):
        for included in INCLUDE.findall(path.read_text()):
            if Path(included).stem in rank or (included.endswith(".h") and not _outside(included, own)):
                found.append(f"{KERNELS}/{path.name}: must not know {included}")
    return found


def _outside(included: str, own: set[str]) -> bool:
    """ggml's headers, the processor's and the system's, and the kernels' own."""
    return (
        Path(included).stem in own
        or included.startswith(("ggml", "sys/"))
        or included in ("traits.h", "cpu_internals.h", "immintrin.h")
    )


if __name__ == "__main__":
    sys.exit("\n".join(problems()) or None)
