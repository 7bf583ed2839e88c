"""Entries of a log: the chunks of one append, packed, and a short form of its nonce behind them.

::

    packed chunks (streamhub.records) | 6 bytes of the BLAKE2b of the nonce

Six bytes keep a token that is flushed alone within 25 bytes, all told. They decide only whether an append that finds
its place taken is the one that took it: of 2**48 such conflicts, one would be mistaken for a retry.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

from streamhub.records import CHUNKS_VERSION, unpack_chunks

NONCE_BYTES = 6

_ONE_CHUNK = bytes((CHUNKS_VERSION, 1))
_LEAST = 3 + NONCE_BYTES


def short_nonce(nonce: bytes) -> bytes:
    """Return what is stored of a nonce."""
    return blake2b(nonce, digest_size=NONCE_BYTES).digest()


def chunks_of(record: bytes) -> list[bytes]:
    """Return the chunks of a record.

    Raises:
        UnsupportedFormatError: a later release wrote it, or it is damaged.
    """
    # Most of a log that was flushed token by token; the rest is for the general way.
    if record[:2] == _ONE_CHUNK and len(record) > _LEAST and record[2] == len(record) - _LEAST < 0x80:
        return [record[3:-NONCE_BYTES]]
    return unpack_chunks(record[:-NONCE_BYTES])


def page_of(records: Sequence[bytes], skip_to: int, newest: int, *, max_chunks: int, max_bytes: int) -> list[bytes]:
    """Return the chunks of records from an index on, up to either bound, but at least one.

    Args:
        records: contiguous, whole.
        skip_to: index of the first chunk wanted, in the first record.
        newest: index of the first record's last chunk.
        max_chunks: how many are enough.
        max_bytes: how many bytes are enough.
    """
    chunks: list[bytes] = []
    for record in records:
        chunks += chunks_of(record)
    if records:
        first = newest + 1 - len(chunks_of(records[0]))
        del chunks[: skip_to - first]
    del chunks[max(max_chunks, 1) :]
    if sum(map(len, chunks)) <= max_bytes:
        return chunks
    sizes = accumulate(map(len, chunks))
    return chunks[: max(1, sum(1 for size in sizes if size <= max_bytes))]
