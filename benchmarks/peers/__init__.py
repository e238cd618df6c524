"""What is measured, side by side. Ours first; llama-server, tuned, is what ratios are taken to."""

from __future__ import annotations

from benchmarks.peers.base import Peer
from benchmarks.peers.inferno_engine import InfernoEngine
from benchmarks.peers.inferno_server import InfernoServer
from benchmarks.peers.llama_programs import BatchedBench, LlamaBench
from benchmarks.peers.llama_server import LlamaServer, LlamaServerDefaults
from benchmarks.peers.openvino_engine import OpenVino

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        InfernoServer(),
        InfernoEngine(),
        LlamaServer(),
        LlamaServerDefaults(),
        BatchedBench(),
        LlamaBench(),
        OpenVino(),
    )
}
#: A quick run leaves out what has to be installed, and what it has no time for.
QUICK_PEERS = ("inferno", "inferno-in-process", "llama-server", "llama-batched-bench", "llama-bench")
