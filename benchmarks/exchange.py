"""What is asked of a peer and what came back, the same for servers and for engines in a process of their own."""

from __future__ import annotations

import msgspec

Tokens = list[int]


class Job(msgspec.Struct, frozen=True):
    """Prompts of several clients: each client sends its own one after the other, all clients at the same time."""

    clients: list[list[Tokens]]
    max_tokens: int

    def prompts(self) -> list[Tokens]:
        return [prompt for client in self.clients for prompt in client]


class Exchange(msgspec.Struct):
    """One request and its answer. Times are seconds of one clock, which is the measuring process's own.

    `times` has a list for each choice: when each piece of its text arrived. A piece is what one event carried, most
    often one token.
    """

    begun: float
    ended: float = 0.0
    times: list[list[float]] = msgspec.field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    text: str = ""
    kind: str = ""  # tells apart the parts of a workload that mixes several

    def piece(self, choice: int, now: float) -> None:
        while len(self.times) <= choice:
            self.times.append([])
        self.times[choice].append(now)


class Failed(Exception):
    """The peer could not be started, or did not answer as it should have."""


class Refused(Failed):
    """The peer answered 400."""


class NotSupported(Exception):
    """The peer says that it does not do what the workload is about."""
