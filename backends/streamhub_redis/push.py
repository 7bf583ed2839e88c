"""What is published with a change: the append itself, where it is small enough.

::

    1 <generation> <index of the first chunk> <end as JSON, or nothing>\\n<record>

An empty message says only that there is something new.
"""

from __future__ import annotations

from streamhub.errors import StreamHubError
from streamhub.records import decode_end
from streamhub.types import Append
from streamhub_redis.entries import NONCE_BYTES, chunks_of

_VERSION = b"1"


def write_hint(item: Append, end: bytes) -> bytes:
    """Write what stands before the record; empty where a reader must read the stream itself."""
    if item.metadata is not None:
        return b""
    return b"1 %d %d %b\n" % (item.generation, item.first, end)


def read_hint(key: str, message: bytes) -> Append | None:
    """Read a message; None if it does not say what was appended, or says it in a later release's format."""
    head, _, record = message.partition(b"\n")
    fields = head.split(b" ", 3)
    if fields[0] != _VERSION:
        return None
    _, generation, first, end = fields
    try:
        chunks = tuple(chunks_of(record)) if record else ()
        ended = decode_end(end) if end else None
    except StreamHubError:
        # A format of a later release: the reader will meet it, and raise it where it belongs.
        return None
    return Append(key, int(generation), int(first), chunks, record[-NONCE_BYTES:], end=ended)
