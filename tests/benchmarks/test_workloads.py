"""What each workload asks for, and what it makes of the answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.exchange import Exchange, NotSupported
from benchmarks.prompts import WORDS, Vocabulary, words
from benchmarks.workloads.base import Setting, Workload
from benchmarks.workloads.chats import Chats
from benchmarks.workloads.choices import Choices
from benchmarks.workloads.clients import UniquePrompts
from benchmarks.workloads.cold_start import ColdStart
from benchmarks.workloads.embeddings import EmbeddingTexts
from benchmarks.workloads.prefixes import SharedPrefixes
from benchmarks.workloads.schema import JsonAnswers, follows_schema
from tests.benchmarks.scripted_server import USAGE, Server, run, status, stream, text

VOCABULARY = Vocabulary(list(range(1000, 2000)))


def driven(workload: Workload, server: Server) -> list[Exchange]:
    async def drive(client: Any) -> list[Exchange]:
        return await workload.drive(client, VOCABULARY, 0)

    exchanges: list[Exchange] = run(server, drive)
    return exchanges


def test_prompts_are_of_exact_length_and_decided_by_the_seed() -> None:
    prompt = VOCABULARY.prompt(64, "a", 1)
    assert len(prompt) == 64
    assert VOCABULARY.prompt(64, "a", 1) == prompt
    assert VOCABULARY.prompt(64, "a", 2) != prompt
    assert len(words(12, "seed").split()) == 12
    assert set(words(50, "seed").split()) <= set(WORDS)


def test_unique_prompts_share_nothing_and_change_with_the_round() -> None:
    workload = UniquePrompts(name="u", clients=4, requests=2, prompt=64, new=8)
    job, other = workload.job(VOCABULARY, 0), workload.job(VOCABULARY, 1)
    assert [len(client) for client in job.clients] == [2] * 4
    beginnings = [tuple(prompt[:16]) for prompt in job.prompts() + other.prompts()]
    assert len(set(beginnings)) == 16
    assert job == workload.job(VOCABULARY, 0)
    assert workload.setting.context >= 72


def prefixes(count: int, clients: int, requests: int = 1) -> SharedPrefixes:
    sizes = {"prefix": 100, "own": 10, "new": 5, "parallel": 4}
    return SharedPrefixes(name="p", lead="Prompts", prefixes=count, clients=clients, requests=requests, **sizes)


def test_a_shared_prefix_is_shared_by_all_and_new_in_each_round() -> None:
    workload = prefixes(1, 16)
    prompts = workload.job(VOCABULARY, 0).prompts()
    assert {len(prompt) for prompt in prompts} == {110}
    assert len({tuple(prompt[:100]) for prompt in prompts}) == 1
    assert len({tuple(prompt[100:]) for prompt in prompts}) == 16
    assert workload.job(VOCABULARY, 1).prompts()[0][:100] != prompts[0][:100]


def test_of_many_prefixes_the_first_are_the_most_popular() -> None:
    prompts = prefixes(8, 50, 40).job(VOCABULARY, 0).prompts()
    counts: dict[tuple[int, ...], int] = {}
    for prompt in prompts:
        counts[tuple(prompt[:100])] = counts.get(tuple(prompt[:100]), 0) + 1
    assert len(counts) == 8
    assert max(counts.values()) > 3 * min(counts.values())


def test_a_chat_s_next_prompt_is_all_that_was_said() -> None:
    workload = Chats(name="c", chats=1, turns=2, head=5, message=3, new=4, parallel=1)
    server = Server(stream(text(" well"), text(" now"), USAGE), stream(text("!"), USAGE))
    assert len(driven(workload, server)) == 2
    first, second = (body["prompt"] for body in server.bodies)
    assert first.endswith("\nAssistant:")
    assert second.startswith(first + " well now\nUser: ")


def test_several_choices_are_asked_for_at_once() -> None:
    server = Server(stream(text("a"), text("b", 1), USAGE))
    driven(Choices(name="n", n=2, requests=1, prompt=8, new=4), server)
    assert (server.bodies[0]["n"], len(server.bodies[0]["prompt"])) == (2, 8)


def json_answers(constrained: bool) -> JsonAnswers:
    return JsonAnswers(name="j", clients=1, requests=1, constrained=constrained)


def test_a_server_that_refuses_a_schema_does_not_support_it() -> None:
    with pytest.raises(NotSupported, match="no response_format"):
        driven(json_answers(True), Server(status(400, b'{"error": "no response_format"}')))


def test_a_schema_is_asked_for_and_the_same_chat_without() -> None:
    asked = []
    for constrained in (True, False):
        server = Server(stream(text("{}"), USAGE))
        driven(json_answers(constrained), server)
        asked += server.bodies
    bound, free = asked
    assert bound["messages"] == free["messages"]
    assert bound["response_format"]["type"] == "json_schema"
    assert "response_format" not in free
    assert "ignore_eos" not in bound


VALID = {"name": "a", "kind": "plant", "known": True, "ratings": [1] * 8, "colours": ["red"] * 6}


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (json.dumps(VALID), True),
        (json.dumps({**VALID, "ratings": [1]}), False),
        (json.dumps({**VALID, "more": 1}), False),
        ('{"name": "cut o', False),
        ("[1]", False),
    ],
)
def test_answers_are_checked_against_the_schema(answer: str, good: bool) -> None:
    assert follows_schema(answer) is good
    exchanges = [Exchange(0, 1, [[0.5]], 9, 9, answer), Exchange(0, 1, [[0.5]], 9, 9, json.dumps(VALID))]
    assert json_answers(True).metrics(exchanges, 0)["valid_share"] == (1 if good else 0.5)


def test_embeddings_count_what_was_read() -> None:
    answer = status(200, b'{"data": [{"embedding": "AAAA", "index": 0}], "usage": {"prompt_tokens": 256}}')
    workload = EmbeddingTexts(name="e", clients=1, requests=2, texts=2, words=126)
    server = Server(answer, answer)
    exchanges = driven(workload, server)
    assert [exchange.prompt_tokens for exchange in exchanges] == [256, 256]
    assert [len(item.split()) for item in server.bodies[0]["input"]] == [126, 126]
    assert server.bodies[0]["encoding_format"] == "base64"
    assert workload.setting == Setting(16, 512, embeddings=True)


def test_a_cold_start_runs_from_the_process_s_start_to_the_first_token() -> None:
    workload = ColdStart(name="s", clients=1, prompt=8, new=4)
    exchanges = [Exchange(7.0, 8.0, [[7.5]], 16, 2), Exchange(8.0, 10.0, [[9.0]], 8, 4)]
    metrics = workload.metrics(exchanges, started=5.0)
    assert metrics["load_to_first_token_ms"] == 2500
    assert metrics["output_tok_s"] == 2  # of the load that follows alone
