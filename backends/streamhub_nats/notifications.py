"""Who of this process listens to what: one connection for all its feeds, while any feed is open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from nats.aio.msg import Msg

from streamhub.errors import BackendUnavailableError, HubClosedError, StreamHubError
from streamhub_nats.channel import Channel
from streamhub_nats.concurrently import awaited


class Subscriber(Protocol):
    """A feed."""

    def receive(self, subject: str, message: Msg) -> None:
        """Take in what was published on a subject."""
        ...

    def fail(self, error: StreamHubError | None) -> None:
        """End, with an error."""
        ...


Dial = Callable[[Callable[[StreamHubError], None]], Awaitable[Channel]]


class Notifications:
    """Feeds and the subjects they want."""

    def __init__(self, dial: Dial, *, where: str, api: str) -> None:
        self._dial = dial
        self._where = where
        self._api = api
        self._feeds: set[Subscriber] = set()
        self._wanted: dict[str, set[Subscriber]] = {}
        self._joining: dict[str, asyncio.Lock] = {}
        self._opening: asyncio.Task[Channel] | None = None
        self._closed = False

    def reopen(self) -> None:
        """Take feeds again after ``aclose``."""
        self._closed = False

    @asynccontextmanager
    async def joined(self, feed: Subscriber) -> AsyncGenerator[None]:
        """Let a feed receive what it subscribes to, inside the block."""
        if self._closed:
            raise HubClosedError("the nats backend is closed")
        self._feeds.add(feed)
        try:
            await self._channel()
            yield
        finally:
            await self._leave(feed)

    async def _channel(self) -> Channel:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="nats notifications")
            self._opening.add_done_callback(_consume)
        opening = self._opening
        try:
            return await awaited(opening)
        except StreamHubError:
            if self._opening is opening:
                self._opening = None
            raise

    async def _open(self) -> Channel:
        opening = asyncio.current_task()

        def ended(error: StreamHubError) -> None:
            # Until it is done, a connection that ends may be one of several that were tried.
            if self._opening is opening and opening is not None and opening.done():
                self._ended(error)

        channel = await self._dial(ended)
        if channel.error is not None:
            await channel.aclose()
            raise channel.error
        return channel

    async def _leave(self, feed: Subscriber) -> None:
        if feed not in self._feeds:
            return
        self._feeds.discard(feed)
        for subject in [subject for subject, feeds in self._wanted.items() if feed in feeds]:
            await self.unsubscribe(feed, subject)
        if not self._feeds:
            await self._close()

    async def subscribe(self, feed: Subscriber, subject: str, ledger: str) -> None:
        """Let a feed receive a subject's messages; those stored after this returns are received.

        Args:
            feed: who wants them.
            subject: where they are published.
            ledger: the JetStream stream whose leader publishes them.
        """
        if feed not in self._feeds:
            raise BackendUnavailableError(f"{self._where}: the feed has ended")
        channel = await self._channel()
        try:
            # One after the other: nobody is told that it is done by what another one began, and may still undo.
            async with self._joining.setdefault(subject, asyncio.Lock()):
                self._wanted.setdefault(subject, set()).add(feed)
                if not channel.follows(subject):
                    await channel.follow(subject, partial(self._received, subject))
                await self._reach(channel, subject, ledger)
        except BaseException:
            await self.unsubscribe(feed, subject)
            raise

    async def _reach(self, channel: Channel, subject: str, ledger: str) -> None:
        """Return once the leader has the subscription: it travels the way of this question, in front of it."""
        query = json.dumps({"last_by_subj": "none"}).encode()
        await channel.ask(f"{self._api}.STREAM.MSG.GET.{ledger}", query)
        channel.check_allowed(subject)

    async def unsubscribe(self, feed: Subscriber, subject: str) -> None:
        """Let a feed receive nothing more of a subject; harmless when it does not."""
        feeds = self._wanted.get(subject, set())
        feeds.discard(feed)
        if feeds or self._wanted.pop(subject, None) is None:
            return
        self._joining.pop(subject, None)
        opening = self._opening
        if opening is not None and opening.done() and not opening.cancelled() and opening.exception() is None:
            await opening.result().unfollow(subject)

    def _received(self, subject: str, message: Msg) -> None:
        for feed in tuple(self._wanted.get(subject, ())):
            feed.receive(subject, message)

    def _ended(self, error: StreamHubError) -> None:
        feeds, self._feeds, self._wanted, self._opening = self._feeds, set(), {}, None
        self._joining = {}
        for feed in feeds:
            feed.fail(error)

    async def _close(self) -> None:
        opening, self._opening = self._opening, None
        self._wanted, self._joining = {}, {}
        if opening is None:
            return
        if not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().aclose()

    async def aclose(self) -> None:
        """Close the connection; feeds raise."""
        self._closed = True
        await self._close()
        self._ended(BackendUnavailableError("the nats backend was closed"))


def _consume(task: asyncio.Task[Channel]) -> None:
    if not task.cancelled():
        task.exception()
