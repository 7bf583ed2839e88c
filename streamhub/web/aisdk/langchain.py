"""From LangChain's ``astream_events`` (version 2) to UI message chunks."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any, cast

from streamhub.web.aisdk.fields import field, plain, text
from streamhub.web.aisdk.parts import UIChunk, Writer
from streamhub.web.aisdk.tools import tool_error, tool_output


async def from_langchain(events: AsyncIterable[Any]) -> AsyncIterator[UIChunk]:
    """Turn what ``runnable.astream_events(…, version="v2")`` yields into chunks: models' texts, and tools."""
    writer = Writer()
    async for event in events:
        for chunk in _chunks(event, writer):
            yield chunk
    for chunk in writer.close():
        yield chunk


def _chunks(event: Any, writer: Writer) -> Iterator[UIChunk]:
    kind, run = text(event, "event"), text(event, "run_id")
    if kind == "on_chat_model_stream":
        yield from _contents(field(event, "data", "chunk", "content"), writer)
    elif kind == "on_llm_stream":
        yield from writer.delta("text", text(event, "data", "chunk", "text"))
    elif kind in ("on_chat_model_end", "on_llm_end"):
        yield from writer.close()
    elif kind == "on_tool_start":
        yield from writer.close()
        given = plain(field(event, "data", "input") or {})
        call = {"toolCallId": run, "toolName": text(event, "name"), "input": given, "dynamic": True}
        yield {"type": "tool-input-available", **call}
    elif kind == "on_tool_end":
        output = field(event, "data", "output")
        content = field(output, "content")
        yield tool_output(run, plain(output if content is None else content))
    elif kind == "on_tool_error":
        yield tool_error(run)


def _contents(content: Any, writer: Writer) -> Iterator[UIChunk]:
    if isinstance(content, str):
        yield from writer.delta("text", content)
    elif isinstance(content, list):
        for block in cast("list[Any]", content):
            reasoning = text(block, "thinking") or text(block, "reasoning")
            yield from writer.delta("reasoning", reasoning)
            yield from writer.delta("text", block if isinstance(block, str) else text(block, "text"))
