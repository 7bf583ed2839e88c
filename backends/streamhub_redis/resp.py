"""Commands as bytes (RESP): an array of bulk strings."""

from __future__ import annotations


def pack(*args: bytes) -> bytes:
    """Write one command."""
    return b"".join([b"*%d\r\n" % len(args), *[b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]])
