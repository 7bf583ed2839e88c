"""Read and describe."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from streamhub.errors import StreamHubError, StreamNotFoundError
from streamhub.records import unpack_chunks
from streamhub.rules import check_present
from streamhub.types import Page, Read, StreamInfo
from streamhub_nats.chain import Chain, crowded
from streamhub_nats.concurrently import concurrently
from streamhub_nats.drafts import Draft
from streamhub_nats.ledger import Message, OvertakenError
from streamhub_nats.recent import Recent
from streamhub_nats.record import Record, read_record
from streamhub_nats.session import ATTEMPTS
from streamhub_nats.stored import Stored, milliseconds

_BATCH = 512
_BATCH_BYTES = 288 * 1024
_LINE_BYTES = 600  # allowed for what a record is beside its chunks
_WITHOUT_CHUNKS = 16  # records in a stretch that are allowed to have none
_TRIES = 8
_PLACES = 4096


class _Page:
    """Chunks on their way into a page; ``whole`` once a bound, or the last chunk, is reached."""

    def __init__(self, read: Read, last: int, size_bytes: int) -> None:
        self.chunks: list[bytes] = []
        self.index = read.after_index + 1
        self.whole = False
        self._left_chunks = max(read.max_chunks, 1)
        self._left_bytes = read.max_bytes
        self._size_bytes = size_bytes
        self._last = last

    @property
    def wanted(self) -> tuple[int, int]:
        """How many records, and how many bytes, may still be of use."""
        records = min(self._left_chunks, self._last - self.index + 1 + _WITHOUT_CHUNKS, _BATCH)
        size = max(min(self._left_bytes, self._size_bytes), 1) + records * _LINE_BYTES
        return records, min(size, _BATCH_BYTES)

    def take(self, record: Record, body: bytes) -> None:
        """Add what a record has of what comes next."""
        skip = self.index - record.begins
        chunks = unpack_chunks(body[record.head_bytes :] if record.head_bytes else body, skip, self._left_chunks)
        if len(body) > self._left_bytes:
            chunks = self._fitting(chunks)
        self.chunks += chunks
        self.index += len(chunks)
        self._left_chunks -= len(chunks)
        self._left_bytes -= sum(map(len, chunks))
        self.whole = self._left_chunks == 0 or self._left_bytes <= 0 or self.index > self._last

    def _fitting(self, chunks: list[bytes]) -> list[bytes]:
        """Return those that the page has room for, which it is full with if some do not fit: one at least."""
        ends = list(accumulate(map(len, chunks)))
        count = bisect_right(ends, self._left_bytes)
        if count < len(chunks):
            self._left_bytes = 0
        return chunks[: count if count or self.chunks else 1]


def _joined(record: Record, parts: list[tuple[int, bytes]], body: bytes) -> bytes:
    """Return the whole body of a record, behind those of its parts."""
    if not record.parts_at:
        return body
    return b"".join((*(piece for at, piece in parts if at >= record.parts_at), body))


class Reader:
    """Answers reads and describes; those of different streams at the same time."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._places: Recent[tuple[int, int], int] = Recent(_PLACES)  # where the page after one that was read begins

    async def read(self, reads: Sequence[Read]) -> list[Page | StreamHubError]:
        """Read pages; see ``StreamStore.read``."""
        return await concurrently(reads, self._answer)

    async def _answer(self, read: Read) -> Page | StreamHubError:
        try:
            for _ in range(ATTEMPTS):
                page = await self._page(read)
                if page is not None:
                    return page
            raise crowded(read.key)
        except StreamHubError as exc:
            return exc.with_traceback(None)

    async def _page(self, read: Read) -> Page | None:
        """Read a page; None if what was to be read has been removed meanwhile."""
        found = await self._chain.load(read.key)
        info = None if found is None else found[0].info(read.key, await self._chain.now())
        if found is None or info is None:
            raise StreamNotFoundError(read.key)
        check_present(info)
        stored, body = found
        metadata = await self._chain.metadata(stored)
        page = _Page(read, info.tail, info.size_bytes)
        if metadata is None:
            return None
        subject = self._chain.session.names.stream(read.key)
        if info.first <= page.index <= info.tail and not await self._fill(page, stored, body, subject):
            return None
        return Page(
            run=info.run,
            attended=info.attended,
            spans=info.spans,
            chunks=tuple(page.chunks),
            first=info.first,
            tail=info.tail,
            end=info.end,
            metadata=copy.deepcopy(dict(metadata)),
        )

    async def _fill(self, page: _Page, stored: Stored, body: bytes, subject: str) -> bool:
        newest = stored.record
        if newest.has_chunks and newest.begins <= page.index and not newest.parts_at:
            page.take(newest, body)
            return True
        start = self._known_place(stored, page.index)
        if start and await self._collect(page, stored, start, subject):
            return True
        place = await self._chain.locate(stored, page.index)
        if place is None:
            return False
        message, record = place
        start = record.parts_at or (stored.sequence if message is None else message.sequence)
        return await self._collect(page, stored, start, subject)

    def _known_place(self, stored: Stored, index: int) -> int:
        """Return a sequence number at which, or soon behind which, a chunk is; 0 if it must be looked for."""
        if index == stored.opening.spans[-1].first:
            return stored.opened_at + 1
        return self._places.get((stored.opened_at, index)) or 0

    async def _collect(self, page: _Page, stored: Stored, start: int, subject: str) -> bool:
        """Take records into the page, from a sequence number up to the newest one known; False if one is missing."""
        parts: list[tuple[int, bytes]] = []
        while not page.whole and start <= stored.sequence:
            messages = await self._batch(subject, start, page)
            if not messages:
                return False
            for message in messages:
                if message.sequence > stored.sequence or page.whole:
                    break
                record, body = read_record(message.data)
                if record.kind == "part":
                    parts.append((message.sequence, body))
                elif record.has_chunks and record.tail >= page.index:
                    if record.begins > page.index:
                        return False
                    page.take(record, _joined(record, parts, body))
                    parts = []
                    if page.whole:
                        self._remember(stored, page.index, record, message.sequence)
            start = messages[-1].sequence + 1
        return page.whole or bool(page.chunks)

    def _remember(self, stored: Stored, index: int, record: Record, sequence: int) -> None:
        """Note where the page after this one begins."""
        place = sequence + 1 if index > record.tail else record.parts_at or sequence
        self._places.put((stored.opened_at, index), place)

    async def _batch(self, subject: str, start: int, page: _Page) -> list[Message]:
        ledger = self._chain.session.streams
        count, max_bytes = page.wanted
        messages = await ledger.run(start, subject, count=count, max_bytes=max_bytes)
        if messages:
            return messages
        # A replica that is behind has answered: the leader knows.
        message = await ledger.next(start, subject)
        return [] if message is None else [message]

    async def describe(self, keys: Sequence[str], *, touch: bool) -> list[StreamInfo | None]:
        """Describe streams; see ``StreamStore.describe``."""
        return await concurrently(keys, self._touched if touch else self._described)

    async def _described(self, key: str) -> StreamInfo | None:
        for _ in range(ATTEMPTS):
            stored = await self._chain.stored(key)
            if stored is None:
                return None
            metadata = await self._chain.metadata(stored)
            if metadata is not None:
                return stored.info(key, await self._chain.now(), copy.deepcopy(dict(metadata)))
        raise crowded(key)

    async def _touched(self, key: str) -> StreamInfo | None:
        for _ in range(_TRIES):
            stored = await self._chain.stored(key)
            if stored is None or stored.state_at(await self._chain.now()) != "open":
                break
            life_ms = milliseconds(stored.opening.retention.unfinished_seconds)
            try:
                touched = await self._chain.write(
                    key, stored.followed_by("touch", life_ms=life_ms), base=stored, opening=stored.opening
                )
            except OvertakenError:
                continue  # whatever came first has extended its life, or ended it
            if self._chain.tails.get(key) is not None:
                self._chain.tails.put(key, Draft(touched))
            break
        return await self._described(key)
