"""What is notified: which streams changed, and what was appended where that is small. ``sql/append.sql`` writes it.

::

    1 <head> <head> …        by blanks, in ASCII
    d<topic>                                                    a stream changed
    a<topic>,<generation>,<tail before>,<tail after>,<record>,<end>     an append; record and end in base64, or empty
    c<topic>,<request>                                          a cancel request, in base64, or empty if it is long
    p<nonce>                                                    a listener tests itself

A topic is the beginning of a hash: names may be long, and hold anything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from streamhub.errors import StreamHubError, UnsupportedFormatError
from streamhub.records import decode_end, unpack_chunks
from streamhub.types import Append, CancelRequest, RunRef

VERSION = "1 "
PROBE = f"{VERSION}p"

_SAID_VERSION = 1
_TOPIC_LETTERS = 16
_MAX_REQUEST_LETTERS = 4000


def topic_of(name: bytes) -> str:
    """Return what a notification calls a name."""
    return base64.b64encode(hashlib.sha256(name).digest())[:_TOPIC_LETTERS].decode()


def stream_topic(key: str) -> str:
    """Return what a notification calls a stream."""
    return topic_of(key.encode())


def run_topic(key: str, run: str) -> str:
    """Return what a notification calls a run; no name holds the byte between the two."""
    return topic_of(key.encode() + b"\0" + run.encode())


def write_said(request: CancelRequest) -> str:
    """Write what a request says, as JSON in ASCII: PostgreSQL's text takes no NUL."""
    return json.dumps({"v": _SAID_VERSION, "reason": request.reason, "requested_by": request.requested_by})


def read_said(ref: RunRef, text: str) -> CancelRequest:
    """Read what ``write_said`` wrote.

    Raises:
        UnsupportedFormatError: a later release wrote it.
    """
    said = json.loads(text)
    if said["v"] != _SAID_VERSION:
        raise UnsupportedFormatError("a cancel request", found=said["v"], known=_SAID_VERSION)
    return CancelRequest(ref.key, ref.run, said["reason"], said["requested_by"])


def write_request(ref: RunRef, said: str) -> str:
    """Write the notification of a request."""
    packed = base64.b64encode(said.encode()).decode()
    return f"{VERSION}c{run_topic(*ref)},{packed if len(packed) <= _MAX_REQUEST_LETTERS else ''}"


def read_request(ref: RunRef, packed: str) -> CancelRequest | None:
    """Read a request from its notification; None if it has to be looked up."""
    try:
        return read_said(ref, base64.b64decode(packed).decode()) if packed else None
    except (StreamHubError, ValueError):
        return None


def write_probe(nonce: str) -> str:
    """Write the notification with which a listener tests itself."""
    return PROBE + nonce


def read_append(key: str, facts: str) -> Append | None:
    """Read what was appended; None if it has to be read, because a later release wrote it."""
    generation, before, last, record, end = facts.split(",")
    try:
        chunks = tuple(unpack_chunks(base64.b64decode(record))) if record else ()
        ended = decode_end(base64.b64decode(end)) if end else None
    except (StreamHubError, binascii.Error):
        return None
    if len(chunks) != int(last) - int(before):
        return None
    return Append(key, int(generation), int(before) + 1, chunks, b"", end=ended)
