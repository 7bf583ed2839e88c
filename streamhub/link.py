"""A feed that comes back: one per process and protocol, opened again after every failure, with all it followed.

``ChangeFeed`` and ``RequestFeed`` have the same shape: topics to follow, and an iteration of what happened to them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamhub.errors import BackendUnavailableError
from streamhub.kit import Inbox
from streamhub.outage import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, ride
from streamhub.tasks import TaskOwner

logger: logging.Logger = logging.getLogger("streamhub")

Topic = TypeVar("Topic", bound=Hashable)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Wire(Generic[Topic, Item]):
    """An open feed: how to begin and stop hints for a topic (effective on return), and what happens."""

    join: Callable[[Topic], Awaitable[None]]
    leave: Callable[[Topic], Awaitable[None]]
    items: AsyncIterable[Item]


class Link(Generic[Topic, Item]):
    """Keeps a wire open while any topic is wanted."""

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Wire[Topic, Item]]],
        tasks: TaskOwner,
        *,
        name: str,
        outage_seconds: float,
        on_item: Callable[[Item], None],
        on_connect: Callable[[bool], None],
    ) -> None:
        """Begin without a connection.

        Args:
            connect: opens a wire.
            tasks: owns the task that iterates it.
            name: of that task.
            outage_seconds: how long ``join`` waits for a connection.
            on_item: called with each item.
            on_connect: called after every connection, once all topics are joined; True if it is not the first.
        """
        self._connect = connect
        self._tasks = tasks
        self._name = name
        self._outage_seconds = outage_seconds
        self._on_item = on_item
        self._on_connect = on_connect
        self._wanted: dict[Topic, object] = {}  # by topic, the join that wants it
        self._leaving: dict[Topic, asyncio.Task[None]] = {}
        self._wire: Wire[Topic, Item] | None = None
        self._failure: BackendUnavailableError | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def join(self, topic: Topic) -> None:
        """Follow a topic until ``leave``; effective on return. Rides out an outage, then raises."""
        mark = self._wanted[topic] = object()
        try:
            if (leaving := self._leaving.get(topic)) is not None:
                await asyncio.shield(leaving)
            if self._task is None or self._task.done():
                self._task = self._tasks.spawn(self._run(), self._name)
            await ride(lambda: self._join(topic), self._outage_seconds)
        except BaseException:
            if self._wanted.get(topic) is mark:  # a later join may want it by now
                del self._wanted[topic]
            raise

    async def _join(self, topic: Topic) -> None:
        if self._wire is None:
            await self._changed.wait()
        if self._wire is None:
            raise BackendUnavailableError(f"the {self._name} is not connected: {self._failure}") from self._failure
        await self._wire.join(topic)

    def leave(self, topic: Topic) -> None:
        """Stop following a topic, in the background."""
        self._wanted.pop(topic, None)
        if self._wire is not None and topic not in self._leaving and not self._tasks.closed:
            self._leaving[topic] = self._tasks.spawn(self._leave(topic, self._wire), f"{self._name}, leaving")

    async def _leave(self, topic: Topic, wire: Wire[Topic, Item]) -> None:
        try:
            if topic not in self._wanted:
                await wire.leave(topic)
        except BackendUnavailableError:
            pass  # the next connection does not join it
        finally:
            self._leaving.pop(topic, None)

    async def _run(self) -> None:
        pause, again, told = FIRST_PAUSE_SECONDS, False, ""
        while True:
            try:
                async with self._connect() as wire:
                    await self._follow(wire, again)
                    pause, again, told = FIRST_PAUSE_SECONDS, True, ""
                    await self._take_all(wire.items)
                raise BackendUnavailableError(f"the {self._name} ended")
            except BackendUnavailableError as exc:
                failure = exc
                if told != str(exc):  # once for as long as it lasts: it may last for ever, as a missing permission does
                    logger.warning("the %s is not connected, and tries again: %s", self._name, exc)
            except Exception as exc:  # a defect of the backend's must not leave its followers deaf for good
                failure = BackendUnavailableError(f"the {self._name} failed with {type(exc).__name__}: see the log")
                if told != str(failure):
                    logger.exception("the %s raised what no backend may raise", self._name)
            told = str(failure)
            self._set(None, failure)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _take_all(self, items: AsyncIterable[Item]) -> None:
        source = aiter(items)
        if isinstance(source, Inbox):  # it can spare its reader a turn of the loop for each item
            await source.hand_to(self._on_item)
            return
        async for item in source:
            self._on_item(item)

    async def _follow(self, wire: Wire[Topic, Item], again: bool) -> None:
        joined = list(self._wanted)
        for topic in joined:
            await wire.join(topic)
        # From here on join() uses this wire itself; what was wanted meanwhile waits in it.
        self._set(wire, None)
        for topic in joined:
            if topic not in self._wanted:
                self.leave(topic)
        self._on_connect(again)

    def _set(self, wire: Wire[Topic, Item] | None, failure: BackendUnavailableError | None) -> None:
        self._wire, self._failure = wire, failure
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
