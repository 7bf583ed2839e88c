"""A message's source: what an application yields, made into a whole message with a stable id."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

from streamhub.inputs import encode_json
from streamhub.producer import Producer
from streamhub.web.aisdk.parts import UIChunk, Writer

ENDED_AT = "ended_at"
"""The metadata field with the time, in seconds since 1970 on the producer's host, at which a message was finished."""

MessageSource: TypeAlias = AsyncIterable[UIChunk | str]


def as_message(source: Callable[[Producer], Any]) -> Callable[[Producer], AsyncIterator[bytes]]:
    """Make a source for ``hub.start`` of one that yields chunks or text, as ``chat_routes`` does with an answer's.

    For a worker that goes on with the answer of an instance that died.
    """

    def make(producer: Producer) -> AsyncIterator[bytes]:
        return write_message(producer, source(producer))

    return make


def message_id(producer: Producer) -> str:
    """Return the id of the message that a run is: the same for every reader, and after a reload."""
    return f"{producer.key}:{producer.run}"


async def write_message(producer: Producer, source: Any) -> AsyncIterator[bytes]:
    """Yield a message's chunks as JSON: the source's, with a ``start`` that has an id, and a ``finish``.

    Text that the source yields in place of chunks becomes text parts. Whatever ends the run, the time is noted.
    """
    first = not producer.resumed
    finished = False
    try:
        async with aclosing(_chunks(source)) as chunks:
            async for chunk in chunks:
                if first and chunk.get("type") != "start":
                    yield encode_json({"type": "start", "messageId": message_id(producer)})
                    first = False
                elif first:
                    chunk = {"messageId": message_id(producer), **chunk}
                first = False
                finished = finished or chunk.get("type") in ("finish", "abort", "error")
                yield encode_json(chunk)
        if first:
            yield encode_json({"type": "start", "messageId": message_id(producer)})
        if not finished:
            yield encode_json({"type": "finish"})
    finally:
        producer.set_metadata({**producer.metadata, ENDED_AT: time.time()})


async def _chunks(source: MessageSource) -> AsyncGenerator[UIChunk]:
    writer = Writer()
    try:
        async for item in source:
            if isinstance(item, str):
                for chunk in writer.delta("text", item):
                    yield chunk
                continue
            for chunk in writer.close():
                yield chunk
            yield item
        for chunk in writer.close():
            yield chunk
    finally:
        aclose = getattr(source, "aclose", None)
        if aclose is not None:
            await aclose()
