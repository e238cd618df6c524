"""Generating text, whatever the dialect."""

from __future__ import annotations

import time

import msgspec

from inferno.request import Request
from inferno.server.call import Answer, Call
from inferno.server.dialects import native, openai, openai_chat, openai_completions
from inferno.server.dialects.base import Renderer
from inferno.server.sse import EventStream, refuse_cancelled


async def inference(call: Call) -> Answer | None:
    body = await call.body()
    request, stream = native.parse(body), native.wants_stream(body)
    return await generate(call, request, native.NativeRenderer(request), stream)


async def inference_stream(call: Call) -> Answer | None:
    """Streams always: the path decides, whatever `stream` says."""
    body = await call.body()
    request, _ = native.parse(body), native.wants_stream(body)
    return await generate(call, request, native.NativeRenderer(request), True)


async def chat_completions(call: Call) -> Answer | None:
    body = await call.body()
    request, stream = openai_chat.parse(body), openai.parse_stream(body)
    renderer = openai_chat.ChatRenderer(request, stream, call.services.fingerprint)
    return await generate(call, request, renderer, stream.stream)


async def completions(call: Call) -> Answer | None:
    body = await call.body()
    request, stream = openai_completions.parse(body), openai.parse_stream(body)
    echo = openai_completions.wants_echo(body)
    renderer = openai_completions.CompletionRenderer(request, stream, call.services.fingerprint, echo)
    return await generate(call, request, renderer, stream.stream)


async def generate(call: Call, request: Request, renderer: Renderer, stream: bool) -> Answer | None:
    """The one way from a Request to an answer. It ends when the client leaves: in the queue, while a model loads,
    or in the middle of the text."""
    request = msgspec.structs.replace(
        request,
        timeout_s=call.services.settings.server.request_timeout_s,
        cache_salt=call.caller.salt if call.caller else 0,
    )
    return await call.unless_disconnected(_generate(call, request, renderer, stream))


async def _generate(call: Call, request: Request, renderer: Renderer, stream: bool) -> Answer | None:
    began = time.perf_counter()
    with call.observe(request) as observed:
        async with call.services.pool.lease(request.model) as lease:
            observed.admitted()
            generation = await lease.engine.submit(request)
            # Once this stands, a queue place is ours: what is refused has been refused with a status of its own.
            if stream:
                await EventStream(call, generation, renderer, observed, began).run()
                return None
            result = await generation.result()
        for choice in result.choices:
            refuse_cancelled(choice.finish_reason)
            observed.sequence(choice.timings, choice.usage, choice.finish_reason)
        observed.usage(result.usage)
    return Answer(renderer.whole(result, round((time.perf_counter() - began) * 1000)))
