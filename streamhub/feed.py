"""One feed per followed stream and process, shared by its local subscribers.

A feed says *something may have changed* and holds the newest chunks; subscribers pull. Nothing here is the truth: a
lost hint costs time until the next poll, never a chunk.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamhub.errors import StreamHubError
from streamhub.link import Link, Wire
from streamhub.observer import Event, Observer, notify
from streamhub.protocols import LeaseManager, StreamStore
from streamhub.reader import LoadedPage, PageReader
from streamhub.settings import HubSettings
from streamhub.tasks import TaskOwner
from streamhub.types import Append, Change, Holder, Span, StreamInfo
from streamhub.window import Window

KEYS_PER_CALL = 256

logger: logging.Logger = logging.getLogger("streamhub")


class Feed:
    """What this process knows of one stream, and who waits for more."""

    def __init__(self, key: str, reader: PageReader, window_bytes: int) -> None:
        self.key = key
        self.version: int = 0
        self.settled: int = -1  # the version at which the window reaches the store's tail, as far as hints tell
        self.window: Window | None = None
        self.abandoned: tuple[int, int] | None = None  # (generation, tail) nobody produces any more
        self.attached: int = 0
        self.joined: asyncio.Task[None] | None = None
        self._reader = reader
        self._window_bytes = window_bytes
        self._waiters: set[asyncio.Future[None]] = set()
        self._polled = False
        self._seen: tuple[int, str, int] | None = None
        self._unheld_since: float | None = None

    async def read(self, after: int) -> LoadedPage:
        """Read a page, and remember it if it reaches the tail."""
        version = self.version
        loaded = await self._reader.read(self.key, after)
        untouched = self.version == version
        known = self._known
        self._absorb(loaded)
        if self._known != known:
            self.changed()  # whoever waits has less than the window now, and its hint may come too late or never
        page, window = loaded.page, self.window
        if window is not None and loaded.last == page.tail == window.tail and page.spans == window.spans and untouched:
            self.settled = self.version
        return loaded

    @property
    def _known(self) -> tuple[Span, int, bool] | None:
        """How far the window reaches."""
        window = self.window
        return None if window is None else (window.spans[-1], window.tail, window.end is not None)

    def _absorb(self, loaded: LoadedPage) -> None:
        page, window = loaded.page, self.window
        if loaded.after > page.tail or loaded.last < page.tail:
            return
        if window is not None:
            if page.spans[-1].generation < window.spans[-1].generation:
                return  # an old answer, from before the last open
            same_run = page.spans[0].generation == window.spans[0].generation
            went_back = page.spans[-1].generation > window.spans[-1].generation and page.spans[-1].first <= window.tail
            if same_run and not went_back and loaded.after <= window.tail:
                window.extend(loaded)
                return
        self.window = Window(loaded, self._window_bytes)

    def push(self, append: Append | None) -> None:
        """Take in a hint, with what was stored if the store sent it along."""
        settled, window = self.settled == self.version, self.window
        fits = append is not None and window is not None and window.push(append)
        if not fits and append is not None and window is not None and window.holds(append):
            return
        self.changed()
        if settled and fits:
            self.settled = self.version

    def changed(self) -> None:
        """Wake everyone who waits."""
        self.version += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def awaited(self) -> bool:
        """True while anyone waits for a change."""
        return bool(self._waiters)

    async def wait(self, version: int, timeout_seconds: float | None = None) -> None:
        """Return once the feed has changed since ``version``, or after the timeout."""
        if self.version != version:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            if timeout_seconds is None:
                await waiter
            else:
                await asyncio.wait([waiter], timeout=timeout_seconds)
        finally:
            self._waiters.discard(waiter)

    def observe(self, info: StreamInfo | None, holder: Holder | None, abandon_after_seconds: float) -> None:
        """Take in what a poll found: wake on any change, and judge whether the run is abandoned."""
        seen = None if info is None else (info.generation, info.state, info.tail)
        first, moved = not self._polled, self._polled and seen != self._seen
        self._polled, self._seen = True, seen
        now = time.monotonic()
        if info is None or moved or not _is_dead(info, holder):
            self.abandoned = self._unheld_since = None
        elif self._unheld_since is None:
            self._unheld_since = now
        elif self.abandoned is None and now - self._unheld_since >= abandon_after_seconds:
            self.abandoned = (info.generation, info.tail)
            self.changed()
        if (first or moved) and not self._knows(info):
            self.changed()

    def _knows(self, info: StreamInfo | None) -> bool:
        """Say whether the window has all that a poll found: then its hints have woken everyone already."""
        window = self.window
        if window is None or info is None or window.spans[-1].generation != info.generation:
            return False
        return window.tail >= info.tail and (info.state == "open" or (info.state == "ended" and window.end is not None))


def _is_dead(info: StreamInfo, holder: Holder | None) -> bool:
    unfinished = info.state == "open" and info.attended
    return unfinished and (holder is None or holder.generation < info.generation)


class Feeds:
    """All feeds of one hub: one change feed of the store, and one slow poll for what it does not tell."""

    def __init__(
        self,
        store: StreamStore,
        leases: LeaseManager,
        tasks: TaskOwner,
        *,
        reader: PageReader,
        settings: HubSettings,
        abandon_after_seconds: float,
        observer: Observer | None,
    ) -> None:
        self.closed_with: StreamHubError | None = None
        self.abandon_after_seconds = abandon_after_seconds
        self._store = store
        self._leases = leases
        self._tasks = tasks
        self._reader = reader
        self._settings = settings
        self._observer = observer
        self._feeds: dict[str, Feed] = {}
        self._poll: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._link: Link[str, Change] = Link(
            self._connect,
            tasks,
            name="change feed",
            outage_seconds=settings.outage_seconds,
            on_item=self._received,
            on_connect=self._connected,
        )

    @property
    def subscribers(self) -> int:
        """How many subscriptions follow a stream now."""
        return sum(feed.attached for feed in self._feeds.values())

    async def attach(self, key: str) -> Feed:
        """Return the feed of a stream, followed; pair with ``detach``. Nothing is held if this raises."""
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(key, self._reader, self._settings.window_bytes)
        feed.attached += 1
        try:
            if feed.joined is None or (feed.joined.done() and not _succeeded(feed.joined)):
                feed.joined = self._tasks.spawn(self._link.join(key), "follow")
            await self._tasks.outcome(feed.joined)
        except BaseException:
            self.detach(feed)
            raise
        if self._poll is None or self._poll.done():
            self._poll = self._tasks.spawn(self._poll_feeds(), "safety poll")
        return feed

    def detach(self, feed: Feed) -> None:
        """Let go of a feed; the last one to go ends it."""
        feed.attached -= 1
        if feed.attached == 0 and self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
            if feed.joined is not None and not feed.joined.done():
                feed.joined.cancel()
            self._link.leave(feed.key)

    def detach_from_any_thread(self, feed: Feed) -> None:
        """As ``detach``, for the garbage collector, which runs anywhere."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.detach, feed)

    def close(self, error: StreamHubError) -> None:
        """Make every subscription raise ``error`` from now on."""
        self.closed_with = error
        self._wake_all()

    def _wake_all(self) -> None:
        for feed in list(self._feeds.values()):
            feed.changed()

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[Wire[str, Change]]:
        async with self._store.changes() as feed:
            yield Wire(feed.follow, feed.unfollow, feed)

    def _connected(self, again: bool) -> None:
        if again:
            notify(self._observer, Event(name="reconnect"))
        self._wake_all()

    def _received(self, change: Change) -> None:
        if change.key is None:
            self._wake_all()
        elif (feed := self._feeds.get(change.key)) is not None:
            feed.push(change.append)

    async def _poll_feeds(self) -> None:
        interval = min(self._settings.poll_seconds, self.abandon_after_seconds / 3)
        while self._feeds:
            await asyncio.sleep(interval * random.uniform(0.8, 1.2))
            awaited = [feed for feed in self._feeds.values() if feed.awaited]
            for start in range(0, len(awaited), KEYS_PER_CALL):
                await self._poll_some(awaited[start : start + KEYS_PER_CALL])

    async def _poll_some(self, feeds: list[Feed]) -> None:
        keys = [feed.key for feed in feeds]
        try:
            holders = await self._leases.holders(keys)
            infos = await self._store.describe(keys)
        except Exception as exc:
            if not isinstance(exc, StreamHubError):
                logger.exception("a poll raised what no backend may raise")
            for feed in feeds:
                feed.changed()  # whoever waits finds out by reading, and rides an outage out or not
            return
        for feed, info, holder in zip(feeds, infos, holders, strict=True):
            feed.observe(info, holder, self.abandon_after_seconds)


def _succeeded(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None
