"""How chunks and ends are written, for backends that store bytes. Every record begins with a format version.

Packed chunks, version 1::

    0x01 | varint n | n varint lengths | the n payloads, one after another

``varint`` is LEB128 (seven bits a byte, least significant first; as in WebAssembly and Protocol Buffers). A flush of
short tokens costs one byte a chunk and three or four in all. An end is a JSON object with its version under ``"v"``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, cast

from streamhub.errors import UnsupportedFormatError
from streamhub.types import End, Retention, Span

CHUNKS_VERSION = 1
END_VERSION = 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def pack_chunks(chunks: Sequence[bytes]) -> bytes:
    """Write chunks, their boundaries kept, as one record."""
    if len(chunks) == 1 and len(chunks[0]) < 0x80:
        return b"\x01\x01%c%b" % (len(chunks[0]), chunks[0])  # what a stream at the pace of an LLM is made of
    lengths = list(map(len, chunks))
    table = bytes(lengths) if max(lengths, default=0) < 0x80 else b"".join(map(_varint, lengths))
    return b"".join((b"\x01", _varint(len(chunks)), table, *chunks))


def unpack_chunks(record: bytes, skip: int = 0, most: int | None = None) -> list[bytes]:
    """Read what ``pack_chunks`` wrote: all, or up to ``most`` chunks after the first ``skip``.

    Raises:
        UnsupportedFormatError: the version is unknown, or the record is damaged.
    """
    if not record or record[0] != CHUNKS_VERSION:
        raise UnsupportedFormatError("a chunk record", found=record[:1], known=CHUNKS_VERSION)
    if not skip and len(record) > 2 and record[1] == 1 and record[2] == len(record) - 3 and record[2] < 0x80:
        return [record[3:]]  # one short chunk: what a stream at the pace of an LLM is made of
    try:
        return _unpack(record, skip, most)
    except IndexError as exc:
        raise UnsupportedFormatError("a chunk record", found="a damaged record", known=CHUNKS_VERSION) from exc


def _unpack(record: bytes, skip: int, most: int | None) -> list[bytes]:
    count, at = _read_varint(record, 1)
    table = record[at : at + count]
    if len(table) == count and (not count or max(table) < 0x80):
        lengths: Sequence[int] = table
        at += count
    else:
        lengths = []
        for _ in range(count):
            length, at = _read_varint(record, at)
            lengths.append(length)
    ends = list(accumulate(lengths, initial=at))
    if ends[-1] != len(record):
        raise IndexError
    if skip or most is not None:
        ends = ends[skip : None if most is None else skip + most + 1]
    return [record[start:end] for start, end in pairwise(ends)]


def encode_end(end: End) -> str:
    """Write an end as JSON text."""
    facts = {"v": END_VERSION, "state": end.state}
    optional = {
        "code": end.code,
        "message": end.message,
        "reason": end.reason,
        "requested_by": end.requested_by,
    }
    facts.update({name: value for name, value in optional.items() if value is not None})
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))


def decode_end(text: str | bytes) -> End:
    """Read what ``encode_end`` wrote.

    Raises:
        UnsupportedFormatError: the version is unknown.
    """
    facts: dict[str, Any] = json.loads(text)
    version = facts.pop("v", None)
    if version != END_VERSION:
        raise UnsupportedFormatError("an end record", found=version, known=END_VERSION)
    return End(**facts)


def encode_spans(spans: Sequence[Span]) -> str:
    """Write spans as ``"7-1,9-43"``."""
    return ",".join(f"{span.generation}-{span.first}" for span in spans)


def decode_spans(text: str) -> tuple[Span, ...]:
    """Read what ``encode_spans`` wrote."""
    pairs = (item.split("-") for item in text.split(","))
    return tuple(Span(int(generation), int(first)) for generation, first in pairs)


def encode_retention(retention: Retention) -> str:
    """Write a retention as JSON text."""
    return json.dumps(
        {name: getattr(retention, name) for name in Retention.__dataclass_fields__}, separators=(",", ":")
    )


def decode_retention(text: str | bytes) -> Retention:
    """Read what ``encode_retention`` wrote."""
    return Retention(**cast("dict[str, Any]", json.loads(text)))
