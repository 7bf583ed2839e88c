"""A connection whose replies are handed on as they arrive.

The driver makes it and authenticates; from then on it has no part in it. A task that reads a stream, as the driver's
does, would begin each reply's way to who waits for it with two more turns of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import InvalidResponse

from streamhub_redis.resp import NOTHING, Replies
from streamhub_redis.wire import Reply, Wire

# What a transport is given at once: how much of that has gone out, it does not tell where it encrypts.
_PART_BYTES = 64 * 1024


class Line(asyncio.Protocol):
    """A connection until its end, of which ``on_end`` is told once, unless it is dropped.

    ``on_replies`` is called whenever something arrives, with the replies that are complete by that.
    """

    def __init__(
        self, wire: Wire, on_replies: Callable[[list[Reply]], None], on_end: Callable[[Exception], None]
    ) -> None:
        self._wire = wire
        self._replies = Replies()
        self._on_replies = on_replies
        self._on_end: Callable[[Exception], None] | None = on_end
        self._parts: deque[memoryview] = deque()
        self._paused = False
        self._transport: asyncio.Transport = wire.hand_over(self)
        self._transport.set_write_buffer_limits(high=_PART_BYTES)

    @property
    def ended(self) -> bool:
        """Whether it is of no more use."""
        return self._on_end is None or self._transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """How much the other side has not taken yet."""
        unsent_bytes = self._transport.get_write_buffer_size()
        return unsent_bytes + sum(map(len, self._parts)) if self._parts else unsent_bytes

    def write(self, data: bytes) -> None:
        """Send packed commands. Nobody waits until they are taken."""
        if len(data) <= _PART_BYTES and not self._parts:
            self._transport.write(data)  # as nearly always
            return
        view = memoryview(data)
        self._parts.extend(view[start : start + _PART_BYTES] for start in range(0, len(data), _PART_BYTES))
        self._push()

    def _push(self) -> None:
        while self._parts and not self._paused and not self._transport.is_closing():
            self._transport.write(self._parts.popleft())

    def pause_writing(self) -> None:
        """Keep the rest."""
        self._paused = True

    def resume_writing(self) -> None:
        """Send more of it."""
        self._paused = False
        self._push()

    def data_received(self, data: bytes) -> None:
        """Hand replies on."""
        if self._on_end is None:
            return
        try:
            self._replies.feed(data)
            replies = [*iter(self._replies.next, NOTHING)]
        except InvalidResponse as exc:
            self._end(exc)
        else:
            self._on_replies(replies)

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
        self._parts.clear()
        self._transport.abort()
        return self._wire.drop()
