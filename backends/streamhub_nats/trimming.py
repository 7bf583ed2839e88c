"""Trimming: a record says which chunk is the first one kept; what lies before it is removed now and then."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from streamhub.records import unpack_chunks
from streamhub.types import Append, Retention
from streamhub_nats.chain import Chain, crowded
from streamhub_nats.concurrently import concurrently
from streamhub_nats.ledger import OvertakenError
from streamhub_nats.recent import Recent
from streamhub_nats.record import Record, read_record
from streamhub_nats.stored import Stored

_EDGES = 256
_AT_ONCE = 16
_READ_RECORDS = 64
_READ_BYTES = 256 * 1024


class _Old(NamedTuple):
    """One of the oldest records: where it and its parts are, and how long its chunks are."""

    parts_at: int
    sequence: int
    begins: int
    lengths: Sequence[int]

    @property
    def last(self) -> int:
        return self.begins + len(self.lengths) - 1


class _Edge:
    """The oldest records of a run, as far as they have been read."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.records: deque[_Old] = deque()


class Trimmer:
    """Keeps runs within their caps where ``overflow`` is ``trim``."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._edges: Recent[str, _Edge] = Recent(_EDGES)

    async def trimmed(self, base: Stored, record: Record, item: Append) -> Record:
        """Return the record with its first chunk moved as far as the caps demand; for ``overflow="trim"`` only."""
        retention = base.opening.retention
        if not item.chunks:
            return record
        first, size = base.record.first, record.size_bytes
        while first < item.last and _exceeds(retention, first, item.last, size):
            lengths, begins = await self._lengths(base, item, first)
            for length in lengths[first - begins :]:
                if first == item.last or not _exceeds(retention, first, item.last, size):
                    break
                first, size = first + 1, size - length
        return record._replace(first=first, size_bytes=size)

    async def _lengths(self, base: Stored, item: Append, index: int) -> tuple[Sequence[int], int]:
        """Return the lengths of the chunks of the record that holds an index, and the first index of it."""
        if index >= item.first:
            return list(map(len, item.chunks)), item.first
        edge = self._edge(item.key, base)
        found = _holding(edge, index)
        if found is None:
            await self._fill(edge, base, item.key, index)
            found = _holding(edge, index)
        if found is None:
            raise crowded(item.key)
        return found.lengths, found.begins

    def _edge(self, key: str, base: Stored) -> _Edge:
        run = base.opening.spans[0].generation
        edge = self._edges.get(key)
        if edge is None or edge.run != run:
            edge = _Edge(run)
            self._edges.put(key, edge)
        return edge

    async def _fill(self, edge: _Edge, base: Stored, key: str, index: int) -> None:
        place = await self._chain.locate(base, index)
        if place is None:
            raise OvertakenError  # it is gone: another writer has trimmed it
        message, record = place
        start = base.sequence if message is None else message.sequence
        subject = self._chain.session.names.stream(key)
        ledger = self._chain.session.streams
        for each in await ledger.run(start, subject, count=_READ_RECORDS, max_bytes=_READ_BYTES):
            record, body = read_record(each.data)
            known = edge.records[-1].last if edge.records else 0
            if not record.has_chunks or record.begins <= known:
                continue
            whole = await self._chain.body(key, each, record, body) if record.parts_at else body
            lengths = [len(chunk) for chunk in unpack_chunks(whole[record.head_bytes :])]
            edge.records.append(_Old(record.parts_at, each.sequence, record.begins, lengths))

    async def erase(self, key: str, record: Record, *, ended: bool) -> None:
        """Remove the records whose chunks all lie before the first one kept, once there are some."""
        edge = self._edges.get(key)
        if edge is None:
            return
        old = [each for each in edge.records if each.last < record.first]
        if len(old) < _AT_ONCE and not ended:
            return
        for each in old:
            await self._erase(key, each)
            edge.records.popleft()
        if ended:
            self._edges.drop(key)

    async def _erase(self, key: str, old: _Old) -> None:
        ledger = self._chain.session.streams
        subject = self._chain.session.names.stream(key)
        sequences = [old.sequence]
        at = old.parts_at
        while at and at < old.sequence:
            part = await ledger.next(at, subject)
            if part is None or part.sequence >= old.sequence:
                break
            sequences.append(part.sequence)
            at = part.sequence + 1
        await concurrently(sequences, ledger.erase)


def _exceeds(retention: Retention, first: int, last: int, size: int) -> bool:
    chunks = retention.max_chunks
    return size > retention.max_bytes or (chunks is not None and last - first + 1 > chunks)


def _holding(edge: _Edge, index: int) -> _Old | None:
    return next((old for old in edge.records if old.begins <= index <= old.last), None)
