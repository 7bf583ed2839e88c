"""Who of this process follows what: one connection listens for all its feeds; where it does not hear, they look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from streamhub.errors import BackendUnavailableError, ConfigError, HubClosedError, StreamHubError
from streamhub_postgres.ear import Ear
from streamhub_postgres.faults import convert
from streamhub_postgres.heads import VERSION
from streamhub_postgres.lane import Lane
from streamhub_postgres.options import PostgresOptions
from streamhub_postgres.target import Target

# How often a look is taken: at once after a change, then ever more rarely.
_SHORTEST_LOOK_SECONDS = 0.02
_LONGEST_LOOK_SECONDS = 0.25

_KINDS = {"a": "d", "d": "d", "c": "c"}


class Subscriber(Protocol):
    """A feed."""

    def receive(self, topic: str, head: str) -> None:
        """Take in a head of a notification, ``kind topic[,facts]``, about a topic that it asked for."""
        ...

    def summarise(self) -> None:
        """Take in that anything may have happened."""
        ...

    def fail(self, error: StreamHubError) -> None:
        """End, with an error."""
        ...

    async def look(self) -> bool:
        """Find out without notifications what has happened; say whether anything has."""
        ...


class Notifications:
    """Feeds and the topics they want; the connection is there while any feed is."""

    def __init__(self, target: Target, options: PostgresOptions, *, channel: str | None, lane: Lane) -> None:
        self._target = target
        self._options = options
        self._channel = channel
        self._lane = lane
        self._feeds: set[Subscriber] = set()
        self._wanted: dict[str, set[Subscriber]] = {}
        self._ear: Ear | None = None
        self._opened = asyncio.Event()
        self._error: StreamHubError | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def reopen(self) -> None:
        """Take feeds again after ``aclose``."""
        self._closed = False

    @property
    def state(self) -> str:
        """Say how this process learns of changes."""
        if self._channel is None:
            return "off: every process looks"
        if self._task is None:
            return "nobody follows anything"
        return "heard" if self._ear is not None and self._ear.hearing else "not heard: this process looks"

    @asynccontextmanager
    async def joined(self, feed: Subscriber) -> AsyncGenerator[None]:
        """Let a feed receive what it subscribes to, inside the block."""
        if self._closed:
            raise HubClosedError("the postgresql backend is closed")
        if self._task is None:
            self._opened, self._error = asyncio.Event(), None
            self._task = asyncio.create_task(self._live(), name="postgresql notifications")
        # The connection stays while any feed does; this one may be cancelled, or fail, while it waits for it.
        self._feeds.add(feed)
        opened = self._opened
        try:
            await opened.wait()
            if feed not in self._feeds:
                raise self._refusal()
            yield
        finally:
            await self._leave(feed)

    def _refusal(self) -> StreamHubError:
        error = self._error
        if isinstance(error, ConfigError):
            return ConfigError(*error.args)
        return BackendUnavailableError(f"{self._target.where}: there is no connection for notifications: {error}")

    async def _leave(self, feed: Subscriber) -> None:
        if feed not in self._feeds:
            return
        self._feeds.discard(feed)
        for topic in [topic for topic, feeds in self._wanted.items() if feed in feeds]:
            self.unsubscribe(feed, topic)
        if not self._feeds:
            await self._end()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def subscribe(self, feed: Subscriber, topic: str) -> None:
        """Let a feed receive what happens to a topic, from now on: a kind of heads, and its hash."""
        if feed not in self._feeds:
            raise BackendUnavailableError(f"{self._target.where}: the feed has ended")
        self._wanted.setdefault(topic, set()).add(feed)

    def unsubscribe(self, feed: Subscriber, topic: str) -> None:
        """Let a feed receive nothing more of a topic; harmless when it does not."""
        feeds = self._wanted.get(topic, set())
        feeds.discard(feed)
        if not feeds:
            self._wanted.pop(topic, None)

    # --- the task

    async def _live(self) -> None:
        looking = asyncio.create_task(self._look(), name="postgresql looking")
        try:
            await self._listen()
            self._opened.set()
            await looking
        except Exception as exc:  # noqa: BLE001 - converted, for the feeds
            self._fail(convert(self._target.where, exc))
        finally:
            self._ear = None
            looking.cancel()
            await asyncio.wait([looking])
            self._opened.set()

    async def _listen(self) -> None:
        """Listen, if there is any use in it: else return."""
        if self._channel is None:
            return
        self._ear = Ear(
            self._target,
            self._options,
            channel=self._channel,
            lane=self._lane,
            opened=self._opened,
            on_payload=self._received,
        )
        await self._ear.run()
        self._ear = None

    async def _look(self) -> None:
        pause, dialled = _SHORTEST_LOOK_SECONDS, self._lane.dialled
        while True:
            await asyncio.sleep(pause)
            if self._ear is not None and (self._ear.hearing or not self._opened.is_set()):
                pause = _SHORTEST_LOOK_SECONDS
                continue
            try:
                moved = [await feed.look() for feed in list(self._feeds)]
            except BackendUnavailableError:
                moved = []
            if self._lane.dialled != dialled:
                # Between two connections, it may have been another server's data, or another moment of it.
                self._summarise()
            dialled = self._lane.dialled
            pause = _SHORTEST_LOOK_SECONDS if any(moved) else min(2 * pause, _LONGEST_LOOK_SECONDS)

    def _summarise(self) -> None:
        for feed in tuple(self._feeds):
            feed.summarise()

    def _received(self, payload: str) -> None:
        if not payload.startswith(VERSION):
            self._summarise()  # a later release wrote it
            return
        for head in payload[len(VERSION) :].split(" "):
            if head.startswith("p") and self._ear is not None:
                self._ear.probed(head[1:])
                continue
            topic = _KINDS.get(head[:1], "") + head[1:].partition(",")[0]
            for feed in tuple(self._wanted.get(topic, ())):
                feed.receive(topic, head)

    def _fail(self, error: StreamHubError) -> None:
        feeds, self._feeds, self._wanted, self._task, self._error = self._feeds, set(), {}, None, error
        for feed in feeds:
            feed.fail(error)

    async def aclose(self) -> None:
        """Close the connection; feeds raise."""
        self._closed = True
        await self._end()
        self._fail(BackendUnavailableError("the postgresql backend was closed"))
