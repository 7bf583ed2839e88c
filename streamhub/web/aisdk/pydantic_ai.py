"""From pydantic-ai's stream events (``PartStartEvent`` …) to UI message chunks."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any

from streamhub.web.aisdk.fields import field, plain, text
from streamhub.web.aisdk.parts import UIChunk, Writer
from streamhub.web.aisdk.tools import ToolCalls, tool_error, tool_output

_KINDS = {"text": "text", "thinking": "reasoning"}


async def from_pydantic_ai(events: AsyncIterable[Any]) -> AsyncIterator[UIChunk]:
    """Turn what ``agent.run_stream_events(…)``, or an ``event_stream_handler`` gets, into chunks."""
    writer, calls = Writer(), ToolCalls()
    async for event in events:
        for chunk in _chunks(event, writer, calls):
            yield chunk
    for chunk in (*writer.close(), *calls.end_all()):
        yield chunk


def _chunks(event: Any, writer: Writer, calls: ToolCalls) -> Iterator[UIChunk]:
    kind = text(event, "event_kind")
    if kind == "part_start":
        yield from writer.close()
        yield from _started(field(event, "index"), field(event, "part"), writer, calls)
    elif kind == "part_delta":
        delta = field(event, "delta")
        yield from writer.delta(_KINDS.get(text(delta, "part_delta_kind"), "text"), text(delta, "content_delta"))
        yield from calls.delta(field(event, "index"), text(delta, "args_delta"))
    elif kind == "function_tool_call":
        yield from writer.close()
        part = field(event, "part")
        call_id, arguments = text(part, "tool_call_id"), field(part, "args")
        yield from calls.begin(call_id, call_id, text(part, "tool_name"))
        if isinstance(arguments, str):
            yield from calls.delta(call_id, arguments)
        yield from calls.end(call_id, None if isinstance(arguments, str) else plain(arguments or {}))
    elif kind == "function_tool_result":
        yield _result(field(event, "part") or field(event, "result"))


def _started(number: Any, part: Any, writer: Writer, calls: ToolCalls) -> Iterator[UIChunk]:
    kind = text(part, "part_kind")
    if kind in _KINDS:
        yield from writer.delta(_KINDS[kind], text(part, "content"))


def _result(part: Any) -> UIChunk:
    call_id = text(part, "tool_call_id")
    if text(part, "part_kind") != "tool-return":
        return tool_error(call_id)
    return tool_output(call_id, plain(field(part, "content")))
