"""What a listener hands to a task that iterates: in order, bounded, and with a last word."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_ITEMS = 4096
"""How much an inbox holds before it is summed up."""


class Inbox(Generic[T]):
    """A bounded queue for one reader."""

    def __init__(self, summary: T) -> None:
        """Begin empty; ``summary`` is an item that makes the reader find everything by itself."""
        self._summary = summary
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._error: Exception | None = None
        self._closed = False

    def put(self, item: T) -> None:
        """Add an item; when there are too many, all are replaced by the summary."""
        if len(self._items) >= MAX_ITEMS:
            self._items.clear()
            item = self._summary
        self._items.append(item)
        self._arrived.set()

    def close(self, error: Exception | None = None) -> None:
        """Let the reader finish, or raise ``error``, once it has taken what is there."""
        if not self._closed:
            self._closed, self._error = True, error
            self._arrived.set()

    def __aiter__(self) -> Inbox[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._closed:
                raise self._error or StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._items.popleft()
