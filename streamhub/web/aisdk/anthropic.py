"""From the events of Anthropic's Messages API (``content_block_delta`` …) to UI message chunks."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any

from streamhub.errors import StreamFailure
from streamhub.web.aisdk.fields import field, finish, text
from streamhub.web.aisdk.parts import UIChunk, Writer
from streamhub.web.aisdk.tools import ToolCalls


async def from_anthropic(events: AsyncIterable[Any]) -> AsyncIterator[UIChunk]:
    """Turn what ``client.messages.create(stream=True)`` or ``messages.stream`` yields into chunks.

    Raises:
        StreamFailure: the API sent an ``error`` event; its text is not passed on.
    """
    writer, calls = Writer(), ToolCalls()
    async for event in events:
        for chunk in _chunks(event, writer, calls):
            yield chunk
    for chunk in (*writer.close(), *calls.end_all()):
        yield chunk


def _chunks(event: Any, writer: Writer, calls: ToolCalls) -> Iterator[UIChunk]:
    kind, number = text(event, "type"), field(event, "index")
    if kind == "content_block_start":
        block = field(event, "content_block")
        yield from writer.close()
        if text(block, "type") == "tool_use":
            yield from calls.begin(number, text(block, "id"), text(block, "name"))
        yield from writer.delta("text", text(block, "text"))
    elif kind == "content_block_delta":
        yield from writer.delta("text", text(event, "delta", "text"))
        yield from writer.delta("reasoning", text(event, "delta", "thinking"))
        yield from calls.delta(number, text(event, "delta", "partial_json"))
    elif kind == "content_block_stop":
        yield from writer.close()
        yield from calls.end(number)
    elif kind == "message_delta":
        yield from writer.close()
        yield finish(field(event, "delta", "stop_reason"))
    elif kind == "error":
        raise StreamFailure("the model's provider reported an error", code="upstream_error")
