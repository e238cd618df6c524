"""Prompts: common English words in random order, the same for the same seed, of an exact number of tokens."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.exchange import Tokens

_COMMON = """
time people way water day man thing woman life child world school state family student group country problem hand part
place case week company system program question work government number night point home room mother area money story
fact month lot right study book eye job word business issue side kind head house service friend father power hour game
line end member law car city community name president team minute idea body information back parent face others level
office door health person art war history party result change morning reason research girl guy moment air teacher force
education foot boy age policy music market sense nation plan college interest death experience effect use class control
field development role effort rate heart drug show leader light voice wife whole police mind price report decision son
view relationship town road arm difference value building action season society tax director position player record
paper space ground form event official matter center couple site project activity star table need court oil situation
cost industry figure street image phone data picture practice piece land product doctor wall patient worker news test
movie north love support step baby computer type attention film tree source organization hair window culture chance
brother energy period course summer plant opportunity term letter condition choice rule daughter south husband floor
campaign material population call economy hospital church risk fire future bank security bit nature evening garden
river mountain bridge forest ocean island bird horse fish dog cat apple bread milk sugar salt stone metal glass
"""
WORDS = _COMMON.split()


def words(count: int, seed: object) -> str:
    return " ".join(random.Random(repr(seed)).choices(WORDS, k=count))


class Vocabulary:
    """Tokens that prompts are made of."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    @classmethod
    def of(cls, model: Path) -> Vocabulary:
        """The words' tokens in a model's own vocabulary; it is loaded for the moment that takes. Raises what the
        engine raises for a bad file."""
        from inferno import _core

        engine = _core.Engine(str(model), {"context_size": 64, "parallel": 1})
        try:
            return cls(sorted({token for word in WORDS for token in engine.tokenize(" " + word)}))
        finally:
            engine.close()

    def prompt(self, count: int, *seed: object) -> Tokens:
        """`count` tokens that nothing but the seed decides."""
        return random.Random(repr(seed)).choices(self._tokens, k=count)
