"""A page of chunks: begun by ``lua/read.lua``, and gone on with by reading the log itself where it is long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from streamhub.errors import StreamHubError
from streamhub.types import Page, Read
from streamhub_redis.answers import log_lost
from streamhub_redis.entries import chunks_of_entry
from streamhub_redis.names import StreamKeys
from streamhub_redis.node import Request
from streamhub_redis.resp import pack
from streamhub_redis.server import Answer
from streamhub_redis.stored import Stored


class Paging:
    """Gathers a page. What it describes, and which entries may be in it, is as it was when it began.

    Args:
        item: what is wanted.
        stored: what describes the stream.
        head: index of the first entry's last chunk.
        entries: the first ones, whole and contiguous; the first holds the first chunk wanted, if any is stored.
        newest: id of the last of them.
        most: how many more to ask for at once; 0 if there is no need.

    Raises:
        DataLostError: the first chunk wanted is not there.
        UnsupportedFormatError: a later release wrote an entry, or it is damaged.
    """

    def __init__(
        self, item: Read, stored: Stored, head: int, entries: Sequence[bytes], newest: bytes, most: int
    ) -> None:
        self._item = item
        self._stored = stored
        self._newest = newest
        self._most = most
        self._entries = len(entries)
        self._entry_bytes = sum(map(len, entries))
        self._chunks: list[bytes] = []
        for place, entry in enumerate(entries):
            self._chunks += chunks_of_entry(entry)
            if place == 0:
                before = item.after_index - head + len(self._chunks)
                if before < 0:
                    raise log_lost(item.key)
                del self._chunks[:before]

    def request(self, keys: StreamKeys) -> Request | None:
        """Ask for what comes next; None when the page is whole."""
        item = self._item
        left = min(
            (item.max_chunks - len(self._chunks)) / max(len(self._chunks), 1),
            (item.max_bytes - self._entry_bytes) / max(self._entry_bytes, 1),
        )
        if self._most == 0 or left <= 0:
            return None
        count = min(self._most, math.ceil(left * self._entries))  # enough, if they are like those that came
        command = pack(b"XRANGE", keys.log, b"(" + self._newest, b"+", b"COUNT", b"%d" % count)
        return Request(keys.meta, command)

    def go_on(self, answer: Answer) -> None:
        """Take what came of that.

        The stream may have been trimmed, deleted or begun anew meanwhile: the page then ends before what is missing, or
        belongs to another run, or is newer than what describes it. So it does before what cannot be read; whoever
        wants to go on there will learn why.
        """
        if isinstance(answer, StreamHubError) or not answer:
            self._most = 0
            return
        generations = {b"%d" % span.generation for span in self._stored.spans}
        tail = self._stored.tail
        last = self._item.after_index + len(self._chunks)
        for name, (_, entry) in answer:
            generation, _, index = name.partition(b"-")
            try:
                chunks = chunks_of_entry(entry)
            except StreamHubError:
                chunks = []
            if generation not in generations or not last < last + len(chunks) == int(index) <= tail:
                self._most = 0
                return
            self._chunks += chunks
            last += len(chunks)
            self._entry_bytes += len(entry)
            self._newest = name
        self._entries += len(answer)

    def page(self) -> Page:
        """Return it."""
        item, stored, chunks = self._item, self._stored, self._chunks
        del chunks[max(item.max_chunks, 1) :]
        if self._entry_bytes > item.max_bytes:
            sizes = accumulate(map(len, chunks))
            del chunks[max(1, sum(1 for size in sizes if size <= item.max_bytes)) :]
        return Page(
            run=stored.run,
            attended=stored.attended,
            spans=stored.spans,
            chunks=tuple(chunks),
            first=stored.first,
            tail=stored.tail,
            end=stored.end,
            metadata=stored.metadata,
        )
