"""Notifications between event loops of one process, in bounded mailboxes."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from streamhub.errors import BackendUnavailableError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MAX_PENDING = 1024


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Mailbox(Generic[T]):
    """What one feed has not taken yet; beyond ``MAX_PENDING`` items all collapse into ``overflow``.

    ``take`` runs on the loop that made the mailbox; ``put`` and ``close`` on any thread, with the lock held.
    """

    def __init__(self, lock: threading.RLock, overflow: T) -> None:
        self._lock = lock
        self._overflow = overflow
        self._loop = asyncio.get_running_loop()
        self._pending: deque[T] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def put(self, item: T) -> None:
        """Leave an item; never waits."""
        if len(self._pending) >= MAX_PENDING:
            self._pending.clear()
            item = self._overflow
        self._pending.append(item)
        self._wake()

    def close(self) -> None:
        """Let this and every later ``take`` raise."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            _finish(waiter)
            return
        with suppress(RuntimeError):  # the mailbox's loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_finish, waiter)

    async def take(self) -> T:
        """Wait for the next item; ``BackendUnavailableError`` once the mailbox is closed."""
        while True:
            with self._lock:
                if self._closed:
                    raise BackendUnavailableError("memory backend is closed")
                if self._pending:
                    return self._pending.popleft()
                waiter = self._waiter = self._loop.create_future()
            await waiter


class Exchange(Generic[K, T]):
    """Who wants to hear about which topic. Every method is called with the lock held.

    ``leave`` may interrupt another method of the same thread: whoever iterates, iterates a copy.
    """

    def __init__(self) -> None:
        self._boxes: dict[Mailbox[T], set[K]] = {}
        self._topics: dict[K, set[Mailbox[T]]] = {}

    def join(self, box: Mailbox[T]) -> None:
        """Add a mailbox, without topics."""
        self._boxes[box] = set()

    def leave(self, box: Mailbox[T]) -> None:
        """Remove a mailbox and its topics."""
        for topic in tuple(self._boxes.get(box, ())):
            self.remove(box, topic)
        self._boxes.pop(box, None)

    def add(self, box: Mailbox[T], topic: K) -> None:
        """Begin to deliver ``topic``; harmless for a mailbox that has left."""
        if box in self._boxes:
            self._boxes[box].add(topic)
            self._topics.setdefault(topic, set()).add(box)

    def remove(self, box: Mailbox[T], topic: K) -> None:
        """Stop delivering ``topic``; harmless if it was not delivered."""
        self._boxes.get(box, set()).discard(topic)
        boxes = self._topics.get(topic, set())
        boxes.discard(box)
        if not boxes:
            self._topics.pop(topic, None)

    def is_wanted(self, topic: K) -> bool:
        """Say whether anybody wants ``topic``."""
        return topic in self._topics

    def publish(self, topic: K, item: T) -> None:
        """Deliver to those who want ``topic``."""
        for box in tuple(self._topics.get(topic, ())):
            box.put(item)

    def broadcast(self, item: T) -> None:
        """Deliver to all."""
        for box in tuple(self._boxes):
            box.put(item)
