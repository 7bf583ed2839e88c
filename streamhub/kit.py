"""Parts that most backends with connections need: who may use one, and what a listener hands to the core's tasks."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from streamhub.errors import HubClosedError, HubContextError

T = TypeVar("T")

MAX_ITEMS = 4096
"""How much an inbox holds before it is summed up."""


class Context:
    """Where a backend may be used: open, in the process and the event loop that opened it."""

    def __init__(self, backend: str) -> None:
        """Begin closed; ``backend`` is what messages call it."""
        self._backend = backend
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = False

    def enter(self) -> None:
        """Note that this process and loop connect."""
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._open = True

    def leave(self) -> None:
        """Note that it is closed."""
        self._open = False

    @property
    def entered(self) -> bool:
        """True between connecting and closing."""
        return self._open

    def check(self) -> None:
        """Raise unless the backend is open, and this is where it was opened.

        Raises:
            HubContextError: this is another process, or another event loop.
            HubClosedError: it is not open.
        """
        if os.getpid() != self._pid:
            raise HubContextError(f"a {self._backend} backend was used after a fork: open one in each process")
        if not self._open:
            raise HubClosedError(f"the {self._backend} backend is not open")
        if asyncio.get_running_loop() is not self._loop:
            raise HubContextError(f"a {self._backend} backend was used from another event loop: open one in each loop")


class Inbox(Generic[T]):
    """What a listener hands to one task that iterates: in order, bounded, and with a last word.

    Everything happens in the event loop's thread. A reader that is cancelled loses nothing.
    """

    def __init__(self, summary: T) -> None:
        """Begin empty; ``summary`` is an item that makes the reader find everything by itself."""
        self._summary = summary
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._take: Callable[[T], None] | None = None
        self._error: Exception | None = None
        self._closed = False

    def put(self, item: T) -> None:
        """Add an item; when there are ``MAX_ITEMS``, all are replaced by the summary."""
        if self._take is not None:
            try:
                self._take(item)
            except Exception as exc:  # noqa: BLE001 - the reader's, not the listener's that puts: the reader gets it
                self._take = None
                self.close(exc)
            return
        if len(self._items) >= MAX_ITEMS:
            self._items.clear()
            item = self._summary
        self._items.append(item)
        self._arrived.set()

    def summarise(self) -> None:
        """Let the reader find everything by itself."""
        self.put(self._summary)

    def close(self, error: Exception | None = None) -> None:
        """Let the reader finish, or raise ``error``, once it has taken what is there. The first call counts."""
        if not self._closed:
            self._closed, self._error = True, error
            self._arrived.set()

    async def hand_to(self, take: Callable[[T], None]) -> None:
        """Call ``take`` with each item, and where it is put: a task that iterates gets it a turn of the loop later.

        Ends as iterating would, or with what ``take`` raises.
        """
        while self._items:
            take(self._items.popleft())
        self._take = take
        try:
            while not self._closed:
                self._arrived.clear()
                await self._arrived.wait()
        finally:
            self._take = None
        if self._error is not None:
            raise self._error

    def __aiter__(self) -> Inbox[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._closed:
                raise self._error or StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._items.popleft()
