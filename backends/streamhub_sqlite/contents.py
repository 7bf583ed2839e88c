"""The chunks of runs: a content number stands for one run's records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from streamhub.records import pack_chunks, unpack_chunks
from streamhub.types import Append, Retention
from streamhub_sqlite.queries import load
from streamhub_sqlite.transaction import Reading, Writing

_SQL = load("record.sql")

# How many records a transaction that collects garbage removes: it holds the write lock meanwhile.
_COLLECT = 500


class Kept(NamedTuple):
    """What is kept of a run's chunks."""

    first: int
    size_bytes: int


def nonce_at(reading: Reading, content: int | None, index: int) -> bytes | None:
    """Return the nonce of the record that holds ``index``."""
    found = reading.row(_SQL["nonce_at"], (content, index))
    return found[1] if found is not None and found[0] <= index else None


def chunks_after(reading: Reading, content: int | None, index: int, most: int | None = None) -> Iterator[list[bytes]]:
    """Yield the chunks after ``index``, record by record, up to ``most`` of each.

    Raises:
        UnsupportedFormatError: a record was written by a later release, or is damaged.
    """
    for first, packed in reading.connection.execute(_SQL["after"], (content, index)):
        yield unpack_chunks(packed, max(index + 1 - first, 0), most)


def record_of(changed: int, content: int | None, append: Append) -> tuple[object, ...]:
    """Return the row that stores an append's chunks."""
    return (
        changed,
        content,
        append.first,
        append.last,
        append.generation,
        append.nonce,
        append.metadata is not None,
        pack_chunks(append.chunks),
    )


def insert(writing: Writing, records: Sequence[tuple[object, ...]]) -> None:
    """Store rows of ``record_of``."""
    writing.write_many(_SQL["insert"], records)


def plan_trim(reading: Reading, content: int | None, kept: Kept, append: Append, retention: Retention) -> Kept:
    """Say what is kept once ``append`` is stored and the oldest chunks have gone, so that the caps hold."""
    first, size_bytes = kept.first, kept.size_bytes + sum(map(len, append.chunks))
    least = first if retention.max_chunks is None else append.last + 1 - retention.max_chunks
    if size_bytes <= retention.max_bytes and first >= least:
        return Kept(first, size_bytes)
    for chunk in _oldest(reading, content, kept, append):
        # The newest chunk always stays.
        if first == append.last or (size_bytes <= retention.max_bytes and first >= least):
            break
        first += 1
        size_bytes -= len(chunk)
    return Kept(first, size_bytes)


def _oldest(reading: Reading, content: int | None, kept: Kept, append: Append) -> Iterator[bytes]:
    for chunks in chunks_after(reading, content, kept.first - 1):
        yield from chunks
    yield from append.chunks


def trim(writing: Writing, content: int | None, first: int) -> None:
    """Remove the records all of whose chunks are before ``first``."""
    writing.write(_SQL["trim"], (content, first))


def discard(writing: Writing, content: int | None) -> None:
    """Give a content up: nobody reads it any more, and its records are removed later, a few at a time."""
    if content is not None:
        writing.write(_SQL["discard"], (content,))
        writing.outbox.garbage = True


def collect(writing: Writing) -> bool:
    """Remove some records of what was discarded; True if there may be more."""
    found = writing.row(_SQL["garbage"])
    if found is None:
        return False
    if writing.write(_SQL["collect"], (found[0], _COLLECT)) < _COLLECT:
        writing.write(_SQL["collected"], found)
    return True
