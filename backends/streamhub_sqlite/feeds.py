"""The feeds of this process: what is followed, and what is told of it by the writing and the watching thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from streamhub.errors import StreamHubError
from streamhub.records import decode_end, unpack_chunks
from streamhub.types import Append, CancelRequest, Change, RunRef
from streamhub_sqlite.inbox import Inbox
from streamhub_sqlite.queries import load
from streamhub_sqlite.transaction import Outbox, Reading

_CHANGED = load("stream.sql")["changed"]
_APPENDED = load("record.sql")["since"]
_REQUESTED = load("request.sql")["since"]

# A hint carries what was appended only if that is little; a reader fetches more by itself.
_MAX_BYTES = 128 * 1024
_MAX_RECORDS = 1000


class SqliteChangeFeed(Inbox[Change]):
    """One process's hints about the streams it follows."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, int] = {}
        # Two threads tell changes; each change is told by whichever comes first.
        self._lock = threading.Lock()

    async def follow(self, key: str) -> None:
        """Begin hints for ``key``; effective at once."""
        with self._lock:
            self._told.setdefault(key, 0)

    async def unfollow(self, key: str) -> None:
        """Stop hints for ``key``."""
        with self._lock:
            self._told.pop(key, None)

    def claim(self, key: str, changed: int) -> bool:
        """Say whether to tell this change of ``key``: it is followed, and no later one was told. From any thread."""
        with self._lock:
            if self._told.get(key, changed) >= changed:
                return False
            self._told[key] = changed
            return True

    def _summary(self, items: Iterable[Change]) -> list[Change]:
        return list({item.key: Change(item.key) for item in items}.values())


class SqliteRequestFeed(Inbox[CancelRequest | None]):
    """One process's cancel requests."""

    def __init__(self) -> None:
        super().__init__()
        self._refs: frozenset[RunRef] = frozenset()

    async def listen(self, ref: RunRef) -> None:
        """Begin notifications for a run; effective at once."""
        self._refs |= {ref}

    async def unlisten(self, ref: RunRef) -> None:
        """Stop notifications for a run."""
        self._refs -= {ref}

    def wanted(self, requests: Iterable[CancelRequest]) -> list[CancelRequest | None]:
        """Return the requests for runs that are listened to. From any thread."""
        return [request for request in requests if (request.key, request.run) in self._refs]

    def _summary(self, items: Iterable[CancelRequest | None]) -> list[CancelRequest | None]:
        return [None]


class Feeds:
    """All feeds that are open. Opened and closed in the loop's thread, told to from others."""

    def __init__(self) -> None:
        self._changes: tuple[SqliteChangeFeed, ...] = ()
        self._requests: tuple[SqliteRequestFeed, ...] = ()

    def add(self, feed: SqliteChangeFeed | SqliteRequestFeed) -> None:
        """Begin to tell a feed."""
        if isinstance(feed, SqliteChangeFeed):
            self._changes += (feed,)
        else:
            self._requests += (feed,)

    def remove(self, feed: SqliteChangeFeed | SqliteRequestFeed) -> None:
        """Tell a feed no more, and let its reader finish."""
        self._changes = tuple(other for other in self._changes if other is not feed)
        self._requests = tuple(other for other in self._requests if other is not feed)
        feed.close()

    def fail(self, error: Exception) -> None:
        """Let all readers raise ``error``; no feed is told to any more."""
        for feed in (*self._changes, *self._requests):
            feed.close(error)
        self._changes, self._requests = (), ()

    def publish(self, outbox: Outbox) -> list[Callable[[], None]]:
        """Tell what this process committed. In the writing thread; the result is for the loop's."""
        deliveries: list[Callable[[], None]] = []
        for feed in self._changes:
            changes = [Change(key, append) for key, changed, append in outbox.hints if feed.claim(key, changed)]
            if changes:
                deliveries.append(partial(feed.put, changes))
        for feed in self._requests:
            wanted = feed.wanted(outbox.requests)
            if wanted:
                deliveries.append(partial(feed.put, wanted))
        return deliveries

    def catch_up(self, reading: Reading, cursor: int) -> tuple[int, list[Callable[[], None]]]:
        """Tell what any process committed after ``cursor``. In the watching thread.

        Returns:
            Up to where that is, and what to do in the loop's thread.
        """
        deliveries: list[Callable[[], None]] = []
        seen = reading.file.changed
        if self._changes:
            # In this order: what was appended after an open makes telling of the open itself unnecessary.
            rows = [_Appended._make(row) for row in reading.rows(_APPENDED, (_MAX_BYTES, cursor, _MAX_RECORDS))]
            others = reading.rows(_CHANGED, (cursor,))
            for feed in self._changes:
                changes = [Change(row.key, _append(row)) for row in rows if feed.claim(row.key, row.changed)]
                changes += [Change(key) for key, changed in others if feed.claim(key, changed)]
                deliveries.append(partial(feed.put, changes))
            if len(rows) == _MAX_RECORDS:
                seen = rows[-1].changed
        if self._requests and reading.file.requested > cursor:
            rows = reading.rows(_REQUESTED, (cursor, reading.now_ms))
            requests = [CancelRequest(*row) for row in rows]
            deliveries += [partial(feed.put, feed.wanted(requests)) for feed in self._requests]
        return seen, deliveries


class _Appended(NamedTuple):
    key: str
    changed: int
    first: int
    generation: int
    nonce: bytes
    metadata: int
    chunks: bytes | None
    end: str | None
    end_nonce: bytes | None


def _append(row: _Appended) -> Append | None:
    """Return what was appended, None if it is not all known here: a reader then reads."""
    if row.chunks is None or row.metadata:
        return None
    try:
        end = decode_end(row.end) if row.end is not None and row.end_nonce == row.nonce else None
        return Append(row.key, row.generation, row.first, tuple(unpack_chunks(row.chunks)), row.nonce, end=end)
    except StreamHubError:
        # An unknown format: the reader will meet it, and raise it where it belongs.
        return None
