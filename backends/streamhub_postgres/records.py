"""Chunks in rows of table record: an append is one row, or several if it is large, so that a page needs no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from streamhub.records import pack_chunks, unpack_chunks

_MAX_BYTES = 128 * 1024
_MAX_CHUNKS = 4096


class Record(NamedTuple):
    """Some chunks of an append, packed."""

    first: int
    last: int
    packed: bytes


def records_of(first: int, chunks: Sequence[bytes], size_bytes: int) -> list[Record]:
    """Pack chunks; none for none."""
    if not chunks:
        return []
    if size_bytes <= _MAX_BYTES and len(chunks) <= _MAX_CHUNKS:
        return [Record(first, first + len(chunks) - 1, pack_chunks(chunks))]
    records: list[Record] = []
    for start, stop in _parts(chunks):
        records.append(Record(first + start, first + stop - 1, pack_chunks(chunks[start:stop])))
    return records


def _parts(chunks: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for place, chunk in enumerate(chunks):
        if place > start and (size + len(chunk) > _MAX_BYTES or place - start >= _MAX_CHUNKS):
            yield start, place
            start, size = place, 0
        size += len(chunk)
    yield start, len(chunks)


def page_of(
    firsts: Sequence[int], records: Sequence[bytes], after: int, *, max_chunks: int, max_bytes: int
) -> tuple[bytes, ...]:
    """Return the chunks after an index, up to the bounds, but one at least; ``records`` are contiguous.

    Raises:
        UnsupportedFormatError: a record was written by a later release, or is damaged.
    """
    page: list[bytes] = []
    for first, packed in zip(firsts, records, strict=True):
        skip = max(after + 1 - first, 0)
        page += unpack_chunks(packed, skip) if skip else unpack_chunks(packed)
    del page[max(max_chunks, 1) :]
    if sum(map(len, page)) > max_bytes:
        left = max_bytes
        for place, chunk in enumerate(page):
            left -= len(chunk)
            if left < 0 and place:
                return tuple(page[:place])
    return tuple(page)
