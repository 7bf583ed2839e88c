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
    lines = [b"*%d" % len(args)]
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
    """Reads replies from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0

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
        found, end = self._reply(self._at)
        if found is not NOTHING:
            self._at = end
        return found

    def _reply(self, start: int) -> tuple[Any, int]:
        stop = self._data.find(b"\r\n", start)
        if stop < 0:
            return NOTHING, start
        kind, text, end = bytes(self._data[start : start + 1]), bytes(self._data[start + 1 : stop]), stop + 2
        try:
            if kind == b"+":
                return text, end
            if kind == b"-":
                return refused(text.decode("utf-8", "replace")), end
            number = int(text)
        except ValueError:
            raise InvalidResponse(f"{bytes(self._data[start:end])!r} is no reply") from None
        if kind == b":":
            return number, end
        if kind == b"$":
            return (None, end) if number < 0 else self._bulk(end, number)
        if kind == b"*":
            return (None, end) if number < 0 else self._array(end, number)
        raise InvalidResponse(f"{bytes(self._data[start:end])!r} is no reply")

    def _bulk(self, start: int, size: int) -> tuple[Any, int]:
        end = start + size + 2
        return (NOTHING, start) if len(self._data) < end else (bytes(self._data[start : end - 2]), end)

    def _array(self, at: int, count: int) -> tuple[Any, int]:
        found: list[Any] = []
        for _ in range(count):
            element, at = self._reply(at)
            if element is NOTHING:
                return NOTHING, at
            found.append(element)
        return found, at


class _QuickReplies:
    """The same, by hiredis."""

    def __init__(self) -> None:
        assert hiredis is not None  # noqa: S101 - see Replies
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=refused, notEnoughData=NOTHING)
        self.feed = self._reader.feed
        self.next = self._reader.gets


Replies = PlainReplies if hiredis is None else _QuickReplies
