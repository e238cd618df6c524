"""Generating text, whatever the dialect."""

from __future__ import annotations

from inferno.request import Request
from inferno.server.call import Answer, Call
from inferno.server.dialects import native, openai, openai_chat, openai_completions
from inferno.server.dialects.base import Renderer
from inferno.server.inference import accepted, refuse_cancelled
from inferno.server.sse import EventStream


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
    echo, only_echo = openai_completions.wants_echo(body), openai_completions.only_echoes(body)
    renderer = openai_completions.CompletionRenderer(request, stream, call.services.fingerprint, echo, only_echo)
    return await generate(call, request, renderer, stream.stream)


async def generate(call: Call, request: Request, renderer: Renderer, stream: bool) -> Answer | None:
    """The one way from a Request to an answer. It ends when the client leaves: in the queue, while a model loads,
    or in the middle of the text."""
    return await call.unless_disconnected(_generate(call, request, renderer, stream))


async def _generate(call: Call, request: Request, renderer: Renderer, stream: bool) -> Answer | None:
    async with accepted(call.services, call.known_caller, call.admission, request, call.origin) as work:
        # What is refused has been refused before this line, with a status of its own.
        if stream:
            await EventStream(call, work.generation, renderer, work.observed, work.began).run()
            return None
        result = await work.generation.result()
        for choice in result.choices:
            refuse_cancelled(choice.finish_reason)
        work.observe(result)
    return Answer(renderer.whole(result, work.elapsed_ms))
