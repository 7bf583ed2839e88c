"""Who of this process listens to what: one connection for all its feeds."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from streamhub.errors import BackendUnavailableError, HubClosedError, StreamHubError
from streamhub_redis.listener import Listener
from streamhub_redis.options import RedisOptions
from streamhub_redis.server import Server


class Subscriber(Protocol):
    """A feed."""

    def receive(self, channel: bytes, message: bytes) -> None:
        """Take in what was published on a channel."""
        ...

    def fail(self, error: StreamHubError | None) -> None:
        """End, with an error."""
        ...


class Notifications:
    """Feeds and the channels they want; the connection is there while any feed is."""

    def __init__(self, server: Server, options: RedisOptions, *, where: str) -> None:
        self._server = server
        self._options = options
        self._where = where
        self._listener: Listener | None = None
        self._feeds: set[Subscriber] = set()
        # With the calls that subscribe just now, and None once one of them was confirmed.
        self._wanted: dict[bytes, dict[Subscriber, set[object]]] = {}
        self._closed = False

    def reopen(self) -> None:
        """Take feeds again after ``aclose``."""
        self._closed = False

    @asynccontextmanager
    async def joined(self, feed: Subscriber) -> AsyncGenerator[None]:
        """Let a feed receive what it subscribes to, inside the block."""
        if self._closed:
            raise HubClosedError("the redis backend is closed")
        if self._listener is None:
            self._listener = self._listen()
        # The connection stays while any feed does; this one may be cancelled, or fail, while it waits for it.
        self._feeds.add(feed)
        try:
            await self._listener.opened()
            yield
        finally:
            await self._leave(feed)

    def _listen(self) -> Listener:
        return Listener(
            self._server.listener,
            where=self._where,
            ping_seconds=self._options.ping_seconds,
            on_message=self._received,
            on_end=self._ended,
        )

    async def _leave(self, feed: Subscriber) -> None:
        if feed not in self._feeds:
            return
        self._feeds.discard(feed)
        for channel in [channel for channel, feeds in self._wanted.items() if feed in feeds]:
            self.unsubscribe(feed, channel)
        listener = self._listener
        if not self._feeds and listener is not None:
            self._listener = None
            await listener.aclose()

    async def subscribe(self, feed: Subscriber, channel: bytes) -> None:
        """Let a feed receive a channel's messages; those published after this returns are received."""
        listener = self._listener
        if listener is None or feed not in self._feeds:
            raise BackendUnavailableError(f"{self._where}: the feed has ended")
        calls, call = self._wanted.setdefault(channel, {}).setdefault(feed, set()), object()
        calls.add(call)
        try:
            await listener.subscribe(channel)
            calls.add(None)
        except BaseException:
            if calls == {call} and self._wanted.get(channel, {}).get(feed) is calls:
                self.unsubscribe(feed, channel)
            raise
        finally:
            calls.discard(call)

    def unsubscribe(self, feed: Subscriber, channel: bytes) -> None:
        """Let a feed receive nothing more of a channel; harmless when it does not."""
        feeds = self._wanted.get(channel, {})
        feeds.pop(feed, None)
        if not feeds and self._wanted.pop(channel, None) is not None and self._listener is not None:
            self._listener.unsubscribe(channel)

    def _received(self, channel: bytes, message: bytes) -> None:
        for feed in tuple(self._wanted.get(channel, ())):
            feed.receive(channel, message)

    def _ended(self, error: StreamHubError) -> None:
        feeds, self._feeds, self._wanted, self._listener = self._feeds, set(), {}, None
        for feed in feeds:
            feed.fail(error)

    async def aclose(self) -> None:
        """Close the connection; feeds raise."""
        self._closed = True
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()
        self._ended(BackendUnavailableError("the redis backend was closed"))
