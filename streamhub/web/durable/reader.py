"""Reading what is stored: one page, and what it says of the stream's end."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import quote

from streamhub.cursor import check_kept, generation_at, locate
from streamhub.errors import (
    BackendUnavailableError,
    StreamHubError,
    StreamNotFoundError,
    StreamReplacedError,
)
from streamhub.hub import Hub
from streamhub.observer import Event, notify
from streamhub.outage import ride
from streamhub.types import End, Offset, Page, Read, StreamInfo
from streamhub.web.durable.creation import TTL_SLACK
from streamhub.web.durable.offsets import Place, write_offset
from streamhub.web.durable.stored import Configuration, visible_configuration

PAGE_CHUNKS = 4096
PAGE_BYTES = 1024 * 1024
MAX_TOUCHED = 4096
BEYOND = 2**62
"""An index after every tail: a page read there is empty, and says where the tail is."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a stream, from one read.

    Attributes:
        run: names what the offsets belong to.
        configuration: the stream's.
        start: where it was read from.
        next: where to go on.
        chunks: what lies between the two.
        up_to_date: whether nothing more was stored.
        end: the stream's end, if nothing comes before it any more.
    """

    run: str
    configuration: Configuration
    start: Offset
    next: Offset
    chunks: tuple[bytes, ...]
    up_to_date: bool
    end: End | None

    @property
    def etag(self) -> str:
        """What a cache compares: run, stretch, and whether it is closed."""
        closed = "" if self.end is None else ":c"
        return f'"{quote(self.run, safe="")}:{write_offset(self.start)}:{write_offset(self.next)}{closed}"'


class Reader:
    """Reads the streams of one application."""

    def __init__(self, hub: Hub, *, default_type: str) -> None:
        self._hub = hub
        self._default_type = default_type
        self._touched: OrderedDict[str, float] = OrderedDict()

    async def read(self, key: str, place: Place) -> Piece:
        """Read a page from a place.

        Raises:
            StreamNotFoundError, StreamDeletedError, StreamExpiredError: there is no such stream.
            StreamReplacedError, OffsetTrimmedError: the offset is of what is not there any more.
            BackendUnavailableError: not now.
        """
        after = BEYOND if place == "now" else 0 if place == "start" else place.index
        page = await self._page(key, after)
        if place == "start":
            while not page.chunks and page.first > after + 1 and page.tail > after:  # the first ones were trimmed
                after = page.first - 1
                page = await self._page(key, after)
        configuration = visible_configuration(page.metadata, attended=page.attended, default_type=self._default_type)
        if configuration is None:
            raise StreamNotFoundError(key, None)
        if isinstance(place, Offset):
            _check(key, place, page)
        if page.chunks and self._hub.observer is not None:
            size = sum(map(len, page.chunks))
            notify(self._hub.observer, Event(name="replay", key=key, count=len(page.chunks), size_bytes=size))
        if configuration.ttl is not None:
            await self._touch(key, configuration.ttl)
        return _piece(page, configuration, page.tail if place == "now" else after)

    async def describe(self, key: str) -> tuple[StreamInfo, Configuration] | None:
        """Describe a stream and how it was created; None if there is none that clients may see."""
        info = (await ride(lambda: self._hub.store.describe([key]), self._hub.settings.outage_seconds))[0]
        if info is None or info.state not in ("open", "ended"):
            return None
        configuration = visible_configuration(info.metadata, attended=info.attended, default_type=self._default_type)
        return None if configuration is None else (info, configuration)

    async def _page(self, key: str, after: int) -> Page:
        reads = [Read(key, after, PAGE_CHUNKS, PAGE_BYTES)]
        answer = (await ride(lambda: self._hub.store.read(reads), self._hub.settings.outage_seconds))[0]
        if isinstance(answer, StreamHubError):
            raise answer
        return answer

    async def _touch(self, key: str, ttl: int) -> None:
        """Let the stream's time-to-live begin anew, unless it did so just now."""
        now = time.monotonic()
        if now - self._touched.get(key, -1e9) < ttl * (TTL_SLACK - 1):
            return
        self._touched[key] = now
        self._touched.move_to_end(key)
        if len(self._touched) > MAX_TOUCHED:
            self._touched.popitem(last=False)
        try:
            await self._hub.store.describe([key], touch=True)
        except BackendUnavailableError:
            self._touched.pop(key, None)  # what was read is not withheld for it


def _check(key: str, place: Offset, page: Page) -> None:
    if locate(key, place, run=page.run, spans=page.spans, tail=page.tail) == "beyond":
        raise StreamReplacedError(key, run=page.run)  # what it is the offset of was lost
    check_kept(key, place.index, first=page.first)


def _piece(page: Page, configuration: Configuration, after: int) -> Piece:
    last = after + len(page.chunks)
    up_to_date = last >= page.tail
    return Piece(
        page.run,
        configuration,
        Offset(generation_at(page.spans, after), after),
        Offset(generation_at(page.spans, last), last),
        page.chunks,
        up_to_date,
        page.end if up_to_date else None,
    )
