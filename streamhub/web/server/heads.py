"""Heads of requests that came before on the same connection.

A client that appends to a stream over a connection that it keeps sends one head again and again. To parse it is a third
of what ``serve`` itself does for a short request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MAX_HEADS = 8
MAX_HEAD_BYTES = 1024

_END = b"\r\n\r\n"
_OTHERWISE_FRAMED = frozenset({b"transfer-encoding", b"upgrade"})


class Head(NamedTuple):
    """What a parser has made of a head: nothing else in it, and the same bytes always mean the same."""

    scope: Mapping[str, Any]
    headers: Sequence[tuple[bytes, bytes]]
    body_bytes: int


class Heads:
    """What the heads of one connection mean, by their bytes: those of requests that came in one piece."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """Take bytes, where a request may begin, for a known head and its whole body, and no more; None if not."""
        end = data.find(_END) + len(_END)
        head = self._known.get(data[:end])
        return None if head is None or len(data) - end != head.body_bytes else (head, data[end:])

    def learn(self, data: bytes, scope: Mapping[str, Any]) -> None:
        """Keep what the parser found in whole requests: the scope of the last, after which the connection goes on."""
        end = data.find(_END) + len(_END)
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        length = 0
        for name, value in headers:
            if name in _OTHERWISE_FRAMED:
                return
            if name == b"content-length":
                length = int(value)
        # Else there are several, each longer than its body; or a body has in it what looks like the end of a head.
        if end > MAX_HEAD_BYTES or len(data) - end != length:
            return
        if len(self._known) >= MAX_HEADS:
            self._known.clear()
        self._known[data[:end]] = Head(scope, headers, length)
