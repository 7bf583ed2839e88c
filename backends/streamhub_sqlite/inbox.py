"""What threads hand to a task that iterates: in order, bounded, and with a last word."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_ITEMS = 2048
"""How much an inbox holds before it is summed up."""


class Inbox(ABC, Generic[T]):
    """A bounded queue for one reader. Everything runs in the loop's thread."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._error: Exception | None = None
        self._closed = False

    @abstractmethod
    def _summary(self, items: Iterable[T]) -> list[T]:
        """Return fewer items that make the reader find the same by itself."""

    def put(self, items: list[T]) -> None:
        """Add items; when there are too many, they are replaced by their summary."""
        self._items.extend(items)
        if len(self._items) > MAX_ITEMS:
            self._items = deque(self._summary(self._items))
        self._arrived.set()

    def close(self, error: Exception | None = None) -> None:
        """Let the reader finish, or raise ``error``."""
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
