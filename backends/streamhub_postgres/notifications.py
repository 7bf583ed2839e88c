"""Who of this process follows what: one connection listens for all its feeds; where it does not hear, they look."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from streamhub.errors import BackendUnavailableError, HubClosedError, StreamHubError
from streamhub_postgres.heads import VERSION
from streamhub_postgres.lane import Lane
from streamhub_postgres.options import PostgresOptions
from streamhub_postgres.target import Target
from streamhub_postgres.watch import Watch

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
    """Feeds and the topics they want; a watch is kept while there is any feed."""

    def __init__(self, target: Target, options: PostgresOptions, *, lane: Lane) -> None:
        self._target = target
        self._options = options
        self._lane = lane
        self._feeds: set[Subscriber] = set()
        self._wanted: dict[str, set[Subscriber]] = {}
        self._watch: Watch | None = None
        self._closed = False

    def reopen(self) -> None:
        """Take feeds again after ``aclose``."""
        self._closed = False

    @property
    def state(self) -> str:
        """Say how this process learns of changes."""
        if not self._options.notifies:
            return "off: every process looks"
        if self._watch is None:
            return "nobody follows anything"
        return "heard" if self._watch.hearing else "not heard: this process looks"

    @asynccontextmanager
    async def joined(self, feed: Subscriber) -> AsyncGenerator[None]:
        """Let a feed receive what it subscribes to, inside the block."""
        if self._closed:
            raise HubClosedError("the postgresql backend is closed")
        watch = self._watch
        if watch is None:
            watch = self._watch = Watch(
                self._target,
                self._options,
                lane=self._lane,
                on_payload=self._received,
                look=self._look,
                summarise=self._summarise,
                on_end=self._ended,
            )
        # It stays while any feed does; this one may be cancelled, or fail, while it waits.
        self._feeds.add(feed)
        try:
            await watch.opened()
            yield
        finally:
            await self._leave(feed)

    async def _leave(self, feed: Subscriber) -> None:
        if feed not in self._feeds:
            return
        self._feeds.discard(feed)
        for topic in [topic for topic, feeds in self._wanted.items() if feed in feeds]:
            self.unsubscribe(feed, topic)
        watch = self._watch
        if not self._feeds and watch is not None:
            self._watch = None
            await watch.aclose()

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

    def _received(self, payload: str) -> None:
        if not payload.startswith(VERSION):
            self._summarise()  # a later release wrote it
            return
        for head in payload[len(VERSION) :].split(" "):
            topic = _KINDS.get(head[:1], "") + head[1:].partition(",")[0]
            for feed in tuple(self._wanted.get(topic, ())):
                feed.receive(topic, head)

    async def _look(self) -> bool:
        return any([await feed.look() for feed in tuple(self._feeds)])

    def _summarise(self) -> None:
        for feed in tuple(self._feeds):
            feed.summarise()

    def _ended(self, watch: Watch, error: StreamHubError) -> None:
        if watch is self._watch:  # else its last feed has left, and the feeds are those of the next one
            self._fail(error)

    def _fail(self, error: StreamHubError) -> None:
        feeds, self._feeds, self._wanted, self._watch = self._feeds, set(), {}, None
        for feed in feeds:
            feed.fail(error)

    async def aclose(self) -> None:
        """Close the connection; feeds raise."""
        self._closed = True
        watch = self._watch
        self._fail(BackendUnavailableError("the postgresql backend was closed"))
        if watch is not None:
            await watch.aclose()
