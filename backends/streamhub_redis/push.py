"""What is published with a change: the append itself, where it is small enough.

::

    1 <generation> <first index> <lengths of the records, by comma> <end as JSON, or nothing>\\n<records>

An empty message says only that there is something new.
"""

from __future__ import annotations

from streamhub.errors import StreamHubError
from streamhub.records import decode_end
from streamhub.types import Append
from streamhub_redis.entries import chunks_of_record

_VERSION = b"1"


def write_hint(item: Append, lengths: bytes, end: bytes) -> bytes:
    """Write what stands before the records."""
    return b"%b %d %d %b %b\n" % (_VERSION, item.generation, item.first, lengths, end)


def read_hint(key: str, message: bytes) -> Append | None:
    """Read a message; None if it does not say what was appended, or says it in a later release's format."""
    head, _, records = message.partition(b"\n")
    if not head.startswith(_VERSION + b" "):
        return None
    try:
        _, generation, first, lengths, end = head.split(b" ", 4)
        chunks = _chunks(lengths, records)
        return Append(key, int(generation), int(first), chunks, b"", end=decode_end(end) if end else None)
    except (StreamHubError, ValueError, KeyError, AttributeError):
        # A format of a later release, which the reader will meet and raise where it belongs; or a stranger's message.
        return None


def _chunks(lengths: bytes, records: bytes) -> tuple[bytes, ...]:
    if not lengths:
        return ()
    if b"," not in lengths:
        return tuple(chunks_of_record(records))
    chunks: list[bytes] = []
    start = 0
    for length in map(int, lengths.split(b",")):
        chunks += chunks_of_record(records[start : start + length])
        start += length
    return tuple(chunks)
