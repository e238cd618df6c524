"""Serves a fake engine in a process of its own: `python -m tests.server.serve_fake DRAIN_SECONDS LOG_LEVEL`.

The engine says one word to each request and then waits to be cancelled.
"""

from __future__ import annotations

import sys

from inferno.server.run import run
from inferno.telemetry import logs

from tests.fakes import FakeEngine
from tests.server.conftest import make_services


class _Talker(FakeEngine):
    async def submit(self, request):  # type: ignore[no-untyped-def]
        generation = await super().submit(request)
        self.say(generation, "word")
        return generation


if __name__ == "__main__":
    logs.configure(sys.argv[2], "text")
    services = make_services(_Talker(None), server__port=0, server__drain_s=float(sys.argv[1]))
    run(services, lambda url: print(url, flush=True))
