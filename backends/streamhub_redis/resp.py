"""The protocol of Redis, version 2 (RESP2): commands as bytes, and replies from bytes.

Source: redis.io, "Redis serialization protocol specification".
"""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio.connection import DefaultParser
from redis.exceptions import InvalidResponse

try:
    import hiredis
except ImportError:  # it reads replies faster
    hiredis = None

NOTHING: Final = object()
"""Stands for a reply that is not there yet."""


_LENGTHS = [b"$%d" % size for size in range(1024)]  # to look them up takes half as long as to write them


def pack(*args: bytes) -> bytes:
    """Write one command: an array of bulk strings."""
    return b"*%d\r\n%b" % (len(args), bulks(*args))


def bulks(*args: bytes) -> bytes:
    """Write a part of a command."""
    lines: list[bytes] = []
    for arg in args:
        size = len(arg)
        lines.append(_LENGTHS[size] if size < 1024 else b"$%d" % size)
        lines.append(arg)
    lines.append(b"")
    return b"\r\n".join(lines)


def refused(text: str) -> Exception:
    """Return the driver's error for what a server answers instead of a result."""
    return DefaultParser.parse_error(text)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class PlainReplies:
    """Reads replies from the pieces in which they arrive, and no element of an array twice."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0
        self._open: list[tuple[list[Any], int]] = []  # arrays, the inner ones last, and how long each will be

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        del self._data[: self._at]
        self._at = 0
        self._data += data

    def next(self) -> Any:
        """Return the next reply (see ``Reply``), or ``NOTHING``.

        Raises:
            InvalidResponse: these are no replies.
        """
        while (found := self._element()) is not NOTHING:
            while self._open:
                array, count = self._open[-1]
                array.append(found)
                if len(array) < count:
                    break
                found = self._open.pop()[0]
            else:
                return found
        return NOTHING

    def _element(self) -> Any:
        """Return what stands next, once it is complete; what arrays with elements begin with is taken note of."""
        start, stop = self._at, self._data.find(b"\r\n", self._at)
        if stop < 0:
            return NOTHING
        self._at = stop + 2
        kind, text = bytes(self._data[start : start + 1]), bytes(self._data[start + 1 : stop])
        try:
            if kind == b"+":
                return text
            if kind == b"-":
                return refused(text.decode("utf-8", "replace"))
            number = int(text)
        except ValueError:
            raise InvalidResponse(f"{kind + text!r} is no reply") from None
        if kind == b":":
            return number
        if kind == b"$":
            return None if number < 0 else self._bulk(start, number)
        if kind == b"*":
            return None if number < 0 else self._array(number)
        raise InvalidResponse(f"{kind + text!r} is no reply")

    def _bulk(self, start: int, size: int) -> Any:
        begin, end = self._at, self._at + size + 2
        if len(self._data) < end:
            self._at = start
            return NOTHING
        self._at = end
        return bytes(self._data[begin : end - 2])

    def _array(self, count: int) -> Any:
        if count == 0:
            return []
        self._open.append(([], count))
        return self._element()


class _QuickReplies:
    """The same, by hiredis."""

    def __init__(self) -> None:
        assert hiredis is not None  # noqa: S101 - see Replies
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=refused, notEnoughData=NOTHING)
        self.feed = self._reader.feed
        self.next = self._reader.gets


Replies = PlainReplies if hiredis is None else _QuickReplies
