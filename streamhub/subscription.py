"""The reading side: replay what is stored, then follow live, from one cursor, without gap or duplicate."""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from streamhub.cursor import check_kept, generation_at, locate
from streamhub.errors import (
    HubClosedError,
    InvalidOffsetError,
    ResumeRefusedError,
    StreamAbandonedError,
    StreamDeletedError,
    StreamExpiredError,
    StreamFailedError,
    StreamHubError,
    StreamNotFoundError,
    StreamReplacedError,
)
from streamhub.feed import Feed, Feeds
from streamhub.observer import Event, Observer, notify
from streamhub.outage import ride
from streamhub.protocols import StreamStore
from streamhub.reader import LoadedPage
from streamhub.types import Chunk, End, Offset
from streamhub.window import Window


class Subscription:
    """Iterates the chunks of one run, from ``hub.subscribe``; ``async with`` it, or iterate it plainly.

    One task iterates at a time. Iteration finishes on a stored ``completed`` or ``cancelled`` (see ``end``), and raises
    for everything else: ``StreamFailedError`` (unless ``strict=False``), ``StreamAbandonedError``,
    ``StreamReplacedError``, ``StreamDeletedError``, ``StreamExpiredError``, ``OffsetTrimmedError``,
    ``InvalidOffsetError``, ``StreamNotFoundError``, ``BackendUnavailableError``, ``DrainingError``,
    ``HubClosedError``. What it raised, it raises again; ``offset`` is where to go on from.
    """

    def __init__(
        self,
        feeds: Feeds,
        store: StreamStore,
        key: str,
        *,
        run: str | None,
        after: Offset | str | None,
        wait_seconds: float,
        strict: bool,
        outage_seconds: float,
        observer: Observer | None,
    ) -> None:
        self.key = key
        self.run = run
        self.end: End | None = None
        self._feeds = feeds
        self._store = store
        self._named = run is not None
        self._latest = after == "latest"
        self._cursor = after if isinstance(after, Offset) else None
        self._wait_seconds = wait_seconds
        self._strict = strict
        self._outage_seconds = outage_seconds
        self._observer = observer
        self._feed: Feed | None = None
        self._finalizer: weakref.finalize[..., Subscription] | None = None
        self._identity = 0  # first generation of the pinned run; 0 before it is pinned
        self._index = 0  # of the last chunk fetched, or where to begin
        self._fetched = self._cursor  # position of the last chunk fetched; None at the start
        self._ready: list[Chunk] = []
        self._next = 0  # place in _ready of the chunk to deliver next
        self._failure: BaseException | None = None
        self._finished = False
        self._busy = False

    @property
    def offset(self) -> Offset | None:
        """Position of the last chunk delivered, or the cursor; None at the start of a stream."""
        return self._cursor

    @property
    def position(self) -> Offset | None:
        """Where to go on from: as ``offset``, but ``g-0`` once the run is found and nothing of it delivered yet.

        Going on from ``g-0`` begins at the same run's first chunk, and is refused when another run took its place.
        """
        if self._cursor is None and self._identity:
            return Offset(self._identity, 0)
        return self._cursor

    @property
    def caught_up(self) -> bool:
        """True when all was delivered that this process knows to be stored: iterating further would wait, or finish."""
        if self._next < len(self._ready):
            return False
        return self.end is not None or (self._feed is not None and self._at_tail_of(self._feed.window))

    @property
    def known_end(self) -> End | None:
        """The run's end, once it is known here and nothing is left to deliver before it; it is not fetched for this."""
        if self.end is not None or not self.caught_up or self._feed is None or self._feed.window is None:
            return self.end
        return self._feed.window.end

    async def __aenter__(self) -> Self:
        try:
            await self._guarded(self._opened)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Chunk:
        if self._next >= len(self._ready) or self._feeds.closed_with is not None:
            await self._refill()
        chunk = self._ready[self._next]
        self._next += 1
        self._cursor = chunk.offset
        return chunk

    async def batches(self) -> AsyncIterator[list[Chunk]]:
        """Iterate lists of the chunks that are at hand together; no list is empty."""
        while True:
            if self._next >= len(self._ready) or self._feeds.closed_with is not None:
                try:
                    await self._refill()
                except StopAsyncIteration:
                    return
            batch = self._ready[self._next :]
            self._next = len(self._ready)
            self._cursor = batch[-1].offset
            yield batch

    async def aclose(self) -> None:
        """Leave the stream. Harmless when repeated; the run is not affected."""
        self._detach()
        self._ready, self._next = [], 0
        if not self._finished and self._failure is None:
            self._failure = HubClosedError("the subscription is closed")

    # --- fetching

    async def _refill(self) -> None:
        """Put at least one chunk at hand, or raise; ``StopAsyncIteration`` at a clean end."""
        if not self._finished:
            await self._guarded(self._fetch)
        if self._finished:
            raise StopAsyncIteration

    async def _guarded(self, step: Callable[[], Awaitable[object]]) -> None:
        if self._failure is not None:
            raise self._failure
        if self._busy:
            raise RuntimeError("the subscription is being iterated by another task: subscribe once for each")
        self._busy = True
        try:
            await step()
        except StreamHubError as exc:
            self._failure = exc
            self._detach()
            raise
        finally:
            self._busy = False

    async def _fetch(self) -> None:
        feed = self._feed if self._identity else None
        if feed is None:
            feed = await self._opened()
        while self._next >= len(self._ready) or self._feeds.closed_with is not None:
            self._check_open()
            version = feed.version
            if self._take_from_window(feed.window):
                return
            if feed.settled == version and feed.abandoned is None and self._at_tail_of(feed.window):
                await feed.wait(version)
                continue
            loaded = await self._read(feed, self._index)
            if self._take_page(loaded):
                return
            if feed.abandoned == (loaded.page.spans[-1].generation, loaded.page.tail):
                raise StreamAbandonedError(self.key, run=loaded.page.run, seconds=self._feeds.abandon_after_seconds)
            await feed.wait(version)

    def _check_open(self) -> None:
        if self._feeds.closed_with is not None:
            raise copy.copy(self._feeds.closed_with)  # one raised by thousands would collect all their tracebacks

    async def _read(self, feed: Feed, after: int) -> LoadedPage:
        return await ride(lambda: feed.read(after), self._outage_seconds)

    def _take_from_window(self, window: Window | None) -> bool:
        """Take what the feed holds after the cursor; True if there was something, or the end."""
        if window is None or not self._shares(window):
            return False
        if chunks := window.after(self._index):
            self._take(chunks)
            return True
        return self._index == window.tail and self._finish(window.end)

    def _shares(self, window: Window) -> bool:
        """Say whether the cursor lies in the window's history; if not, the store decides what became of it."""
        if window.spans[0].generation != self._identity or self._index > window.tail:
            return False
        return self._fetched is None or generation_at(window.spans, self._index) == self._fetched.generation

    def _at_tail_of(self, window: Window | None) -> bool:
        return window is not None and self._index == window.tail and self._shares(window)

    def _take_page(self, loaded: LoadedPage) -> bool:
        """Take what a page holds after the cursor; True if there was something, or the end."""
        page = loaded.page
        if page.spans[0].generation != self._identity:
            raise StreamReplacedError(self.key, run=page.run)
        if self._fetched is not None:
            locate(self.key, self._fetched, run=page.run, spans=page.spans, tail=page.tail)
        if loaded.chunks:
            self._take(loaded.chunks)
            return True
        if self._fetched is None and not self._latest:
            self._index = max(self._index, page.first - 1)  # the start moves on while the run is trimmed
        check_kept(self.key, self._index, first=page.first)
        return self._index == page.tail and self._finish(page.end)

    def _take(self, chunks: list[Chunk]) -> None:
        self._ready, self._next = chunks, 0
        self._fetched = chunks[-1].offset
        self._index = self._fetched.index

    def _finish(self, end: End | None) -> bool:
        if end is None:
            return False
        self.end = end
        self._detach()
        if end.state == "failed" and self._strict:
            raise StreamFailedError(self.key, end)
        self._finished = True
        return True

    # --- opening

    async def _opened(self) -> Feed:
        """Follow the stream and pin the run, waiting for it as long as was asked; return its feed."""
        if self._feed is None:
            self._check_open()
            self._feed = await self._feeds.attach(self.key)
            self._finalizer = weakref.finalize(self, self._feeds.detach_from_any_thread, self._feed)
            self._finalizer.atexit = False
        deadline = time.monotonic() + self._wait_seconds
        while not self._identity:
            self._check_open()
            version = self._feed.version
            refusal = await self._pin(self._feed)
            if refusal is None:
                notify(self._observer, Event(name="subscribe", key=self.key, run=self.run, generation=self._identity))
                break
            left = deadline - time.monotonic()
            if left <= 0:
                raise refusal
            self._latest = False  # nothing was there: all that comes is later
            await self._feed.wait(version, left)
        return self._feed

    async def _pin(self, feed: Feed) -> StreamHubError | None:
        """Pin the run and the cursor to what is stored; return why not, where waiting may help, else raise."""
        try:
            loaded = await self._read(feed, _BEYOND if self._latest else self._index_of_cursor())
        except StreamNotFoundError:
            return StreamNotFoundError(self.key, self.run)
        except (StreamDeletedError, StreamExpiredError) as gone:
            return await self._judge_fence(gone)
        page = loaded.page
        if self._named and page.run != self.run:
            if self._cursor is not None and self._cursor.generation < page.spans[0].generation:
                raise StreamReplacedError(self.key, run=page.run)
            return StreamNotFoundError(self.key, self.run)
        if self._cursor is not None:
            position = locate(self.key, self._cursor, run=page.run, spans=page.spans, tail=page.tail)
            if position == "beyond":
                return self._beyond(page.tail, final=page.end is not None)
            check_kept(self.key, self._cursor.index, first=page.first)
        self._begin(loaded)
        return None

    def _index_of_cursor(self) -> int:
        return 0 if self._cursor is None else self._cursor.index

    def _beyond(self, tail: int, *, final: bool) -> StreamHubError:
        error = InvalidOffsetError(
            f"offset {str(self._cursor)!r} lies beyond the tail of stream {self.key!r} ({tail}):"
            f" {'subscribe from the start' if final else 'pass wait=seconds to wait for it'}"
        )
        if final:
            raise error
        return error

    def _begin(self, loaded: LoadedPage) -> None:
        page = loaded.page
        self.run, self._identity = page.run, page.spans[0].generation
        if self._latest:
            generation = generation_at(page.spans, page.tail)
            self._cursor = self._fetched = Offset(generation, page.tail)
            self._index = page.tail
        elif self._cursor is None:
            self._index = page.first - 1
        else:
            self._index = self._cursor.index
        if loaded.after == self._index and loaded.chunks:
            self._take(loaded.chunks)

    async def _judge_fence(self, gone: ResumeRefusedError) -> StreamHubError | None:
        info = (await ride(lambda: self._store.describe([self.key]), self._outage_seconds))[0]
        if info is None or info.state in ("open", "ended"):
            return StreamNotFoundError(self.key, self.run)  # it has changed since: its hint will come
        if self._cursor is not None and self._cursor.generation <= info.generation:
            raise gone
        if self._named and info.run != self.run:
            return StreamNotFoundError(self.key, self.run)
        if self._named and info.end is not None:
            raise gone  # this run will not come back
        return gone

    def _detach(self) -> None:
        if self._feed is not None and self._finalizer is not None and self._finalizer.detach() is not None:
            self._feeds.detach(self._feed)


_BEYOND = 2**62
"""An index after every tail: a page read there is empty, and says where the tail is."""
