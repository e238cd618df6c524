"""`inferno monitor` on a terminal, while a real model talks."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from tests.cli.terminal import Terminal
from tests.e2e.conftest import KEY, MODEL, Server

LONG = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 64, "ignore_eos": True}


def test_tokens_flow(server: Server, tmp_path: Path) -> None:
    seen = threading.Event()

    def talk() -> None:
        while not seen.is_set():
            server.client.post("/inference", json=LONG).raise_for_status()

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
        with Terminal("monitor", "--url", server.url, "--key", KEY, "--interval", "0.5", env=environ) as terminal:
            terminal.until(r"generated +[1-9][\d,.]* tokens/s")
            terminal.until(r"first token +[\d.]+ m?s")  # a request has ended
            terminal.until(rf"running +1 of 4 slots[\s\S]*{MODEL} +ready")
            terminal.press("q")
            assert terminal.ended() == 0
            assert terminal.is_as_before
    finally:
        seen.set()
        talking.join()
