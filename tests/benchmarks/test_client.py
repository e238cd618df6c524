"""The suite's client against a socket that answers as it is told."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from benchmarks.client import Client, closed_loop, completion, together
from benchmarks.exchange import Exchange, Failed, Job, Refused
from tests.benchmarks.scripted_server import HEAD, USAGE, Server, run, status, stream, text


async def one(client: Client, *, exchange: Exchange | None = None) -> Exchange:
    async with client.connection() as connection:
        return await connection.stream("/v1/completions", completion([1, 2], 3), exchange)


def test_counts_tokens_by_usage_and_times_pieces_of_text() -> None:
    server = Server(stream(text("a"), text(""), text("bc"), USAGE))
    exchange = run(server, one)
    assert (exchange.prompt_tokens, exchange.completion_tokens, exchange.text) == (7, 3, "abc")
    assert [len(times) for times in exchange.times] == [2]
    assert exchange.begun <= exchange.times[0][0] <= exchange.times[0][1] <= exchange.ended


def test_keeps_the_pieces_of_choices_apart() -> None:
    server = Server(stream(text("a", 1), text("b", 0), text("c", 1), USAGE))
    assert [len(times) for times in run(server, one).times] == [1, 2]


def test_reads_chats() -> None:
    first, second = ({"choices": [{"index": 0, "delta": delta}]} for delta in ({"role": "assistant"}, {"content": "x"}))
    exchange = run(Server(stream(first, second, USAGE)), one)
    assert (exchange.text, len(exchange.times[0])) == ("x", 1)


def test_adds_up_usage_that_comes_for_each_choice() -> None:
    exchange = run(Server(stream(text("a"), USAGE, text("b", 1), USAGE)), one)
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (7, 6)


def test_says_what_it_wants_and_who_it_is() -> None:
    server = Server(stream(text("a"), USAGE))
    run(server, one)
    body = server.bodies[0]
    assert (body["model"], body["prompt"], body["max_tokens"]) == ("a-model", [1, 2], 3)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert "Authorization: Bearer a-key\r\n" in server.heads[0]


def test_a_client_sends_its_requests_one_after_the_other_on_one_connection() -> None:
    server = Server(*[stream(text("a"), USAGE)] * 3)
    exchanges = run(server, lambda client: closed_loop(client, Job([[[1], [2], [3]]], 4)))
    assert server.connections == 1
    assert [body["prompt"] for body in server.bodies] == [[1], [2], [3]]
    assert all(before.ended <= after.begun for before, after in itertools.pairwise(exchanges))


def test_clients_of_a_job_have_a_connection_each() -> None:
    server = Server(*[stream(text("a"), USAGE)] * 2)
    assert len(run(server, lambda client: closed_loop(client, Job([[[1]], [[2]]], 4)))) == 2
    assert server.connections == 2


def test_a_connection_that_the_server_closed_between_requests_is_opened_again() -> None:
    server = Server(stream(text("a"), USAGE), b"", stream(text("b"), USAGE))
    exchanges = run(server, lambda client: closed_loop(client, Job([[[1], [2]]], 4)))
    assert [exchange.text for exchange in exchanges] == ["a", "b"]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (status(400, b'{"error": "too long"}'), Refused, "400: .*too long"),
        (status(500, b"broken"), Failed, "500: broken"),
        (stream({"error": {"message": "fell over"}}), Failed, "fell over"),
        (stream(text("a")), Failed, "without usage"),
        (b"", Failed, "closed the connection"),
    ],
)
def test_tells_what_went_wrong(answer: bytes, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        run(Server(answer), one)


def test_a_request_that_is_not_answered_ends_in_time() -> None:
    with pytest.raises(Failed, match=r"not answered in 0\.05 s"):
        run(Server(HEAD, b""), one, timeout_s=0.05)


def test_what_came_is_there_when_the_caller_stops_waiting() -> None:
    exchange = Exchange(0)

    async def cut_off(client: Client) -> None:
        task = asyncio.ensure_future(one(client, exchange=exchange))
        while not exchange.times:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    begun = HEAD + b"".join(
        b"%x\r\n%s\r\n" % (len(e), e) for e in [b"data: " + json.dumps(text("a")).encode() + b"\n\n"]
    )
    run(Server(begun), cut_off)
    assert (exchange.text, exchange.ended) == ("a", 0)


def test_when_one_part_fails_the_rest_is_cancelled() -> None:
    ended = []

    async def fails() -> None:
        raise Failed("this one")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(Failed, match="this one"):
        asyncio.run(together([waits(), fails()]))
    assert ended == [True]
