"""Cancel requests: rows, told to the processes that listen as stream changes are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from streamhub.types import CancelRequest, RunRef
from streamhub_sqlite.clock import milliseconds
from streamhub_sqlite.database import Database
from streamhub_sqlite.feeds import SqliteRequestFeed
from streamhub_sqlite.queries import load
from streamhub_sqlite.transaction import Reading, Writing

_SQL = load("request.sql")


class SqliteCancels:
    """The cancel requests of one file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def request(
        self, key: str, run: str, *, reason: str | None, requested_by: str | None, ttl_seconds: float
    ) -> bool:
        """Store a request, then notify; see ``CancelBus.request``."""
        request = CancelRequest(key, run, reason, requested_by)
        return await self._database.write(lambda writing: _store(writing, request, ttl_seconds))

    async def pending(self, runs: Sequence[RunRef]) -> Sequence[CancelRequest | None]:
        """Read stored requests; see ``CancelBus.pending``."""
        return await self._database.read(lambda reading: [_find(reading, *ref) for ref in runs])

    def requests(self) -> AbstractAsyncContextManager[SqliteRequestFeed]:
        """Open a feed of notifications; see ``CancelBus.requests``."""
        return self._database.follow_requests()


def _store(writing: Writing, request: CancelRequest, ttl_seconds: float) -> bool:
    if _find(writing, request.key, request.run) is not None:
        return False
    expires_ms = writing.now_ms + milliseconds(ttl_seconds)
    writing.file.requested = writing.change()
    values = (request.key, request.run, request.reason, request.requested_by, expires_ms, writing.file.requested)
    writing.write(_SQL["put"], values)
    writing.outbox.requests.append(request)
    return True


def _find(reading: Reading, key: str, run: str) -> CancelRequest | None:
    found = reading.row(_SQL["find"], (key, run, reading.now_ms))
    return None if found is None else CancelRequest(key, run, *found)


def sweep_requests(writing: Writing, limit: int) -> None:
    """Remove requests that have run out."""
    writing.write(_SQL["sweep"], (writing.now_ms, limit))
