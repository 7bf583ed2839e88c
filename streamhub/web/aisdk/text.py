"""From plain text to UI message chunks."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from streamhub.web.aisdk.parts import UIChunk, Writer


async def from_text(deltas: AsyncIterable[str]) -> AsyncIterator[UIChunk]:
    """Turn text deltas into one text part."""
    writer = Writer()
    async for delta in deltas:
        for chunk in writer.delta("text", delta):
            yield chunk
    for chunk in writer.close():
        yield chunk
