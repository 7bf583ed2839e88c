"""Entries of a log: the chunks of one append, or a part of many, and a short form of the append's nonce.

A record is what a client sends and a channel carries; an entry is a record with the nonce behind it::

    0x84, the chunk, 4 bytes of nonce                one chunk of an attended run
    0x88, the chunk, 8 bytes of nonce                one chunk where many writers share the generation
    packed chunks (streamhub.records), 8 bytes       anything else

The nonce is a hash of the append's. It decides only whether an append that finds its place taken is the one that took
it. A lone chunk of an attended run gets four bytes, because there they are a fifth of all that a token costs, and only
a store that went back, or a lost reply, makes such a conflict at all: one of 2**32 would be mistaken for a retry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

from streamhub.errors import UnsupportedFormatError
from streamhub.records import pack_chunks, unpack_chunks

NONCE_BYTES = 8

# One record holds no more, so that a page never has to fetch much that it does not want.
_MOST_CHUNKS = 1024
_MOST_BYTES = 64 * 1024

LONE = b"\x84"
_LONE_HEADS = {LONE: 4, b"\x88": 8}


def short_nonce(nonce: bytes) -> bytes:
    """Return what is stored of a nonce, at most."""
    return blake2b(nonce, digest_size=NONCE_BYTES).digest()


def records_of(chunks: Sequence[bytes], size_bytes: int) -> list[tuple[int, bytes]]:
    """Write chunks as records; each with how many chunks it ends after."""
    if len(chunks) <= _MOST_CHUNKS and size_bytes <= _MOST_BYTES:
        return [(len(chunks), _record(chunks))] if chunks else []
    return [(stop, _record(chunks[start:stop])) for start, stop in _parts(chunks)]


def _record(chunks: Sequence[bytes]) -> bytes:
    return LONE + chunks[0] if len(chunks) == 1 else pack_chunks(chunks)


def _parts(chunks: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for place, chunk in enumerate(chunks):
        size += len(chunk)
        if place > start and (place - start >= _MOST_CHUNKS or size > _MOST_BYTES):
            yield start, place
            start, size = place, len(chunk)
    yield start, len(chunks)


def chunks_of_record(record: bytes) -> list[bytes]:
    """Return the chunks of a record.

    Raises:
        UnsupportedFormatError: a later release wrote it, or it is damaged.
    """
    return [record[1:]] if record[:1] == LONE else unpack_chunks(record)


def chunks_of_fields(fields: Sequence[bytes]) -> list[bytes]:
    """Return the chunks of an entry, from its one field and that field's name.

    Raises:
        UnsupportedFormatError: a later release wrote it, or it is damaged.
    """
    if len(fields) != 2:
        raise UnsupportedFormatError("an entry of a log", found=f"{len(fields) // 2} fields", known="1")
    entry = fields[1]
    nonce = _LONE_HEADS.get(entry[:1])
    return unpack_chunks(entry[:-NONCE_BYTES]) if nonce is None else [entry[1:-nonce]]
