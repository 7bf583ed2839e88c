"""From the chunks of OpenAI's Chat Completions API (``chat.completion.chunk``) to UI message chunks."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any

from streamhub.web.aisdk.fields import field, finish, text
from streamhub.web.aisdk.parts import UIChunk, Writer
from streamhub.web.aisdk.tools import ToolCalls


async def from_openai_chat(events: AsyncIterable[Any]) -> AsyncIterator[UIChunk]:
    """Turn what ``client.chat.completions.create(stream=True)`` yields into chunks.

    The first choice alone is taken. Reasoning is what compatible servers call ``reasoning_content`` or ``reasoning``.
    """
    writer, calls = Writer(), ToolCalls()
    async for event in events:
        choice = field(event, "choices", 0)
        for chunk in _chunks(choice, writer, calls):
            yield chunk
    for chunk in (*writer.close(), *calls.end_all()):
        yield chunk


def _chunks(choice: Any, writer: Writer, calls: ToolCalls) -> Iterator[UIChunk]:
    delta = field(choice, "delta")
    yield from writer.delta("reasoning", text(delta, "reasoning_content") or text(delta, "reasoning"))
    yield from writer.delta("text", text(delta, "content") or text(delta, "refusal"))
    for call in field(delta, "tool_calls") or ():
        number = field(call, "index")
        if text(call, "id"):
            yield from writer.close()
            yield from calls.begin(number, text(call, "id"), text(call, "function", "name"))
        yield from calls.delta(number, text(call, "function", "arguments"))
    reason = field(choice, "finish_reason")
    if reason is not None:
        yield from writer.close()
        yield from calls.end_all()
        yield finish(reason)
