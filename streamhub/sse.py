"""Server-sent events: events to bytes, and bytes to events however they are cut. Pure; no I/O.

The format is that of the WHATWG's HTML standard, "Server-sent events", 9.2.5 and 9.2.6. A line ends with CR, LF or
CRLF, and the receiver puts LF between the lines of an event's data: a CR does not survive the format itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

CONTENT_TYPE = "text/event-stream; charset=utf-8"
_LINE_END = re.compile(b"\r\n|\r|\n")
_FORBIDDEN_IN_FIELD = re.compile("[\r\n\0]")
_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """An event is larger than the parser holds."""


# --- encoding


def encode_event(
    data: bytes | None, *, event_id: str | None = None, name: str | None = None, id_last: bool = False
) -> bytes:
    """Write one event; without data it only sets what the client will send as ``Last-Event-ID``.

    Where the id stands makes no difference to a client that keeps to the standard. There are some that take it as soon
    as they read it, and miss an event that is cut off behind it (``id_last`` is for those); and some that take an event
    as soon as they read its data, with the id before it.

    Raises:
        ValueError: the id or the name holds a line end or NUL, which would begin another field.
    """
    id_line = b"" if event_id is None else b"id: %b\n" % _field("an event's id", event_id)
    event = b"" if name is None else b"event: %b\n" % _field("an event's name", name)
    if data is not None:
        if b"\n" in data or b"\r" in data:
            data = b"\ndata: ".join(_LINE_END.split(data))
        event += b"data: %b\n" % data
    return b"%b%b\n" % ((event, id_line) if id_last else (id_line, event))


def encode_tight_event(data: bytes, name: str) -> bytes:
    """Write one event without the space that may stand before a value, but where the value itself begins with one.

    For clients that look for their events as text instead of parsing them.
    """
    lines = [b"data: %b\n" % line if line[:1] == b" " else b"data:%b\n" % line for line in _LINE_END.split(data)]
    return b"event: %b\n%b\n" % (_field("an event's name", name), b"".join(lines))


def encode_comment(text: str = "") -> bytes:
    """Write a comment, which clients skip: it keeps a connection from looking idle.

    No empty line follows: there are clients that take one for an event, whatever came before.
    """
    return b": %b\n" % _field("a comment", text)


def encode_retry(milliseconds: int) -> bytes:
    """Write how long a client waits before it reconnects; no event of its own."""
    return b"retry: %d\n" % milliseconds


def _field(what: str, value: str) -> bytes:
    if _FORBIDDEN_IN_FIELD.search(value):
        raise ValueError(f"{what} must not hold a line end or NUL: {value!r}")
    return value.encode("utf-8")


# --- parsing


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``data`` is as it was sent: nobody has checked that it is UTF-8.

    ``id`` is the last event id at this event, which may be an earlier event's.
    """

    name: bytes
    data: bytes
    id: bytes = b""


class Parser:
    """An incremental parser.

    Attributes:
        last_id: the id to resume from, as ``Last-Event-ID``; set by events without data too.
        retry_milliseconds: what the sender asked for last; None if it never did.
    """

    def __init__(self, *, max_event_bytes: int = 8 * 1024 * 1024) -> None:
        self.last_id: bytes = b""
        self.retry_milliseconds: int | None = None
        self._max_event_bytes = max_event_bytes
        self._first = b""  # what may be a byte order mark
        self._at_start = True
        self._line: list[bytes] = []  # the pieces of a line that has not ended
        self._size = 0
        self._after_return = False
        self._id = b""
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes; yield the events they complete.

        Raises:
            EventTooLargeError: the event under way is larger than ``max_event_bytes``.
        """
        for line in self._lines(data):
            if line:
                self._take_field(line)
                continue
            event = self.close()
            if event is not None:
                yield event

    def close(self) -> Event | None:
        """Return the event under way, if it has data: at the end of the bytes, one without its empty line."""
        self.last_id = self._id
        name, parts = self._name, self._data
        self._name, self._data, self._size = b"", [], 0
        return Event(name or b"message", b"\n".join(parts), self._id) if parts else None

    def _lines(self, data: bytes) -> Iterator[bytes]:
        if self._at_start:
            self._first += data
            if len(self._first) < len(_BOM) and _BOM.startswith(self._first):
                return
            data = self._first.removeprefix(_BOM)
            self._at_start = False
        if not data:
            return
        # The bytes may be cut between the halves of a CRLF, whose first half has ended the line.
        start = 1 if self._after_return and data[:1] == b"\n" else 0
        for match in _LINE_END.finditer(data, start):
            self._take(data[start : match.start()])
            line, self._line = b"".join(self._line), []
            yield line
            start = match.end()
        self._after_return = data[-1:] == b"\r"
        self._take(data[start:])

    def _take(self, piece: bytes) -> None:
        if piece:
            self._line.append(piece)
            self._size += len(piece)
            if self._size > self._max_event_bytes:
                raise EventTooLargeError(f"an event of more than {self._max_event_bytes} bytes")

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"retry" and value.isdigit():
            self.retry_milliseconds = int(value[:9])
