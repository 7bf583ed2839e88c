"""A connection whose replies are handed on as they arrive.

The driver makes it and authenticates; from then on it has no part in it. A task that reads a stream, as the driver's
does, would begin each reply's way to who waits for it with two more turns of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import InvalidResponse

from streamhub_redis.resp import NOTHING, Replies
from streamhub_redis.wire import Reply, Wire


class Line(asyncio.Protocol):
    """A connection until its end, of which ``on_end`` is told once, unless it is dropped."""

    def __init__(self, wire: Wire, on_reply: Callable[[Reply], None], on_end: Callable[[Exception], None]) -> None:
        self._wire = wire
        self._replies = Replies()
        self._on_reply = on_reply
        self._on_end: Callable[[Exception], None] | None = on_end
        self._transport: asyncio.Transport = wire.hand_over(self)

    @property
    def ended(self) -> bool:
        """Whether it is of no more use."""
        return self._on_end is None or self._transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """How much the other side has not taken yet."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Send packed commands. Nobody waits until they are taken."""
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Hand replies on."""
        try:
            self._replies.feed(data)
            while self._on_end is not None and (reply := self._replies.next()) is not NOTHING:
                self._on_reply(reply)
        except InvalidResponse as exc:
            self._end(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end."""
        self._end(exc or DriverConnectionError("the server closed the connection"))

    def _end(self, exc: Exception) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(exc)

    def drop(self) -> Coroutine[Any, Any, None]:
        """Close it without waiting for the other side; nobody is told. What is returned lets the driver know."""
        self._on_end = None
        self._transport.abort()
        return self._wire.drop()
