"""Trim: which chunks an append to a full run drops is planned here, and done only if nobody was faster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from streamhub.records import unpack_chunks
from streamhub.types import Append
from streamhub_postgres.rows import Row
from streamhub_postgres.wire import Wire

_RECORDS_PER_CALL = 64


class Trim(NamedTuple):
    """What was kept when the trimming was planned, and what is kept after it."""

    seen_first: int
    seen_bytes: int
    first: int
    kept_bytes: int


async def plan_trim(wire: Wire, query: str, row: Row, item: Append) -> Trim:
    """Say what is kept once ``item`` is stored and the oldest chunks have gone, so that the caps hold."""
    first, size_bytes = row.first, row.size_bytes + sum(map(len, item.chunks))
    least = first if row.max_chunks is None else item.last + 1 - row.max_chunks
    async for chunk in _oldest(wire, query, row, item):
        # The newest chunk always stays.
        if first == item.last or (size_bytes <= row.max_bytes and first >= least):
            break
        first += 1
        size_bytes -= len(chunk)
    return Trim(row.first, row.size_bytes, first, size_bytes)


async def _oldest(wire: Wire, query: str, row: Row, item: Append) -> AsyncIterator[bytes]:
    index = row.first
    while index <= row.tail:
        records = await wire.fetch(query, row.content, index, _RECORDS_PER_CALL)
        if not records:
            break
        for first, packed in records:
            chunks = unpack_chunks(packed, max(index - first, 0))
            index += len(chunks)
            for chunk in chunks:
                yield chunk
    for chunk in item.chunks:
        yield chunk
