"""Server-sent events, as the WHATWG describes them: bytes in, events out, however the bytes are cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(b"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """An event is larger than the parser holds."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``data`` is as it was sent: nobody has checked that it is UTF-8."""

    name: bytes
    data: bytes


class Parser:
    """An incremental parser. ``id`` and ``retry`` are of no use here, and left out."""

    def __init__(self, *, max_event_bytes: int = 8 * 1024 * 1024) -> None:
        self._max_event_bytes = max_event_bytes
        self._first = b""  # what may be a byte order mark
        self._at_start = True
        self._line: list[bytes] = []  # the pieces of a line that has not ended
        self._size = 0
        self._after_return = False
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes; yield the events they complete.

        Raises:
            EventTooLargeError: the event under way is larger than ``max_event_bytes``.
        """
        for line in self._lines(data):
            if line:
                self._field(line)
                continue
            event = self.close()
            if event is not None:
                yield event

    def close(self) -> Event | None:
        """Return the event under way, if it has data: at the end of the bytes, one without its empty line."""
        name, parts = self._name, self._data
        self._name, self._data, self._size = b"", [], 0
        return Event(name or b"message", b"\n".join(parts)) if parts else None

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

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
