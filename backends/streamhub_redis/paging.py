"""A page of chunks: begun by ``lua/read.lua``, and gone on with by reading the log itself where it is long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeAlias

from streamhub.errors import StreamHubError
from streamhub.types import Page, Read
from streamhub_redis.answers import log_lost
from streamhub_redis.entries import chunks_of_fields
from streamhub_redis.names import StreamKeys
from streamhub_redis.node import Request
from streamhub_redis.resp import pack
from streamhub_redis.server import Answer

Found: TypeAlias = Sequence[tuple[bytes, Sequence[bytes]]]
"""Entries, each with its id and its fields."""

# So many entries are asked for at once, and so many times as many as came: small ones may stand before large ones.
_MOST_ENTRIES = 1024
_GROWTH = 4


class Paging:
    """Gathers a page. It is as of the moment at which it was begun, and may end early.

    Args:
        item: what is wanted.
        keys: of the stream.
        page: what describes it, without chunks.
        found: the first entries.
        goes_on: whether there is more behind them.

    Raises:
        DataLostError: the first chunk wanted should be there, and is not.
        UnsupportedFormatError: a later release wrote the entry that holds it, or it is damaged.
    """

    def __init__(self, item: Read, keys: StreamKeys, page: Page, found: Found, *, goes_on: bool) -> None:
        self._item = item
        self._keys = keys
        self._page = page
        self._generations = {b"%d" % span.generation for span in page.spans}
        self._goes_on = goes_on
        self._chunks: list[bytes] = []
        self._newest = b""  # id of the last entry taken
        self._entries = self._entry_bytes = 0
        self._latest = (0, 0, 0)  # entries, their chunks and bytes, that came last
        self._take(found)

    def request(self) -> Request | None:
        """Ask for what comes next; None when the page is whole."""
        chunks, size_bytes = self._item.max_chunks - len(self._chunks), self._item.max_bytes - self._entry_bytes
        if not self._goes_on or chunks <= 0 or size_bytes <= 0:
            return None
        entries, their_chunks, their_bytes = self._latest
        enough = math.ceil(entries * min(chunks / their_chunks, size_bytes / their_bytes))  # if they are like these
        count = min(enough, self._entries * _GROWTH, _MOST_ENTRIES)
        command = pack(b"XRANGE", self._keys.log, b"(" + self._newest, b"+", b"COUNT", b"%d" % count)
        return Request(self._keys.meta, command)

    def go_on(self, answer: Answer) -> None:
        """Take what came of that. Whatever keeps the page from going on will be met by whoever reads on from there."""
        if isinstance(answer, StreamHubError) or not answer:
            self._goes_on = False
        else:
            self._take(answer)

    def _take(self, found: Found) -> None:
        before = self._entries, len(self._chunks), self._entry_bytes
        for name, fields in found:
            try:
                self._chunks += self._next(name, fields)
            except StreamHubError:
                if not self._chunks:
                    raise
                self._goes_on = False
                break
            self._newest = name
            self._entries += 1
            self._entry_bytes += len(fields[1])
        after = self._entries, len(self._chunks), self._entry_bytes
        self._latest = tuple(now - then for now, then in zip(after, before, strict=True))

    def _next(self, name: bytes, fields: Sequence[bytes]) -> list[bytes]:
        """Return the chunks of an entry, which must be those that come next.

        It may not be: since the page was begun, the stream may have been trimmed, or deleted and begun anew. And what
        is newer than what describes the page belongs to the next one.
        """
        generation, _, text = name.partition(b"-")
        index = int(text)
        if generation not in self._generations or index > self._page.tail:
            raise log_lost(self._item.key)
        chunks = chunks_of_fields(fields)
        known = self._item.after_index + len(self._chunks) - index + len(chunks)
        if not 0 <= known < len(chunks):
            raise log_lost(self._item.key)
        return chunks[known:]

    def page(self) -> Page:
        """Return it."""
        item, chunks = self._item, self._chunks
        del chunks[max(item.max_chunks, 1) :]
        if self._entry_bytes > item.max_bytes:
            sizes = accumulate(map(len, chunks))
            del chunks[max(1, sum(1 for size in sizes if size <= item.max_bytes)) :]
        return replace(self._page, chunks=tuple(chunks))
