"""From the events of OpenAI's Responses API (``response.output_text.delta`` …) to UI message chunks."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any

from streamhub.errors import StreamFailure
from streamhub.web.aisdk.fields import field, finish, text
from streamhub.web.aisdk.parts import UIChunk, Writer
from streamhub.web.aisdk.tools import ToolCalls

_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
}


async def from_openai_responses(events: AsyncIterable[Any]) -> AsyncIterator[UIChunk]:
    """Turn what ``client.responses.create(stream=True)`` yields into chunks.

    Raises:
        StreamFailure: the response failed; the provider's text is not passed on.
    """
    writer, calls = Writer(), ToolCalls()
    async for event in events:
        for chunk in _chunks(event, writer, calls):
            yield chunk
    for chunk in (*writer.close(), *calls.end_all()):
        yield chunk


def _chunks(event: Any, writer: Writer, calls: ToolCalls) -> Iterator[UIChunk]:
    kind = text(event, "type")
    if kind in _DELTAS:
        yield from writer.delta(_DELTAS[kind], text(event, "delta"))
    elif kind == "response.output_item.added" and text(event, "item", "type") == "function_call":
        yield from writer.close()
        yield from calls.begin(
            field(event, "output_index"), text(event, "item", "call_id"), text(event, "item", "name")
        )
    elif kind == "response.function_call_arguments.delta":
        yield from calls.delta(field(event, "output_index"), text(event, "delta"))
    elif kind == "response.output_item.done":
        yield from writer.close()
        yield from calls.end(field(event, "output_index"))
    elif kind == "response.completed":
        yield from _finished(writer, calls, "completed")
    elif kind == "response.incomplete":
        yield from _finished(writer, calls, text(event, "response", "incomplete_details", "reason"))
    elif kind in ("response.failed", "error"):
        raise StreamFailure("the model's provider reported an error", code="upstream_error")


def _finished(writer: Writer, calls: ToolCalls, reason: str) -> Iterator[UIChunk]:
    yield from writer.close()
    yield from calls.end_all()
    yield finish(reason)
