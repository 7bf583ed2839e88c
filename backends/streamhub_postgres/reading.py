"""Read, describe and list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from streamhub.errors import (
    StreamDeletedError,
    StreamExpiredError,
    StreamHubError,
    StreamNotFoundError,
)
from streamhub.types import Page, Read, StreamInfo
from streamhub_postgres.records import page_of
from streamhub_postgres.rows import info_of, row_of
from streamhub_postgres.session import Session
from streamhub_postgres.wire import Wire

_KEYS_PER_CALL = 1000


class Reading:
    """The questions of one schema's streams."""

    def __init__(self, session: Session, queries: dict[str, str], records: dict[str, str]) -> None:
        self._session = session
        self._queries = queries
        self._records = records

    async def read(self, reads: Sequence[Read]) -> list[Page | StreamHubError]:
        """Read pages, all in one statement; see ``StreamStore.read``."""
        rows = await self._session.fetch(
            self._session.reading,
            self._records["read"],
            [item.key for item in reads],
            [item.after_index for item in reads],
            [item.max_chunks for item in reads],
            [item.max_bytes for item in reads],
        )
        answers: list[Page | StreamHubError] = [StreamNotFoundError(item.key) for item in reads]
        for place, firsts, records, *columns in rows:
            item = reads[int(place) - 1]
            try:
                answers[place - 1] = _page(item, columns, firsts or (), records or ())
            except StreamHubError as exc:
                answers[place - 1] = exc.with_traceback(None)
        return answers

    async def describe(self, keys: Sequence[str], *, touch: bool) -> list[StreamInfo | None]:
        """Describe streams; see ``StreamStore.describe``."""

        async def job(wire: Wire) -> list[Any]:
            if touch:
                await wire.fetch(self._queries["touch"], sorted(set(keys)))
            return await wire.fetch(self._queries["find"], list(set(keys)))

        found = {
            columns[0]: info_of(row_of(columns)) for columns in await self._session.run(self._session.reading, job)
        }
        return [found.get(key) for key in keys]

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """Yield keys in order, some at a time; see ``StreamStore.keys``."""
        query, place = self._queries["keys_from"], prefix
        while True:
            rows = await self._session.fetch(self._session.reading, query, place, _KEYS_PER_CALL)
            for key, is_there in rows:
                if not key.startswith(prefix):
                    return
                if is_there:
                    yield key
            if len(rows) < _KEYS_PER_CALL:
                return
            query, place = self._queries["keys_after"], rows[-1][0]


def _page(item: Read, columns: Sequence[Any], firsts: Sequence[int], records: Sequence[bytes]) -> Page:
    row = row_of(columns)
    if row.state is None:
        raise StreamNotFoundError(item.key)
    if row.state == "deleted":
        raise StreamDeletedError(item.key)
    if row.state == "expired":
        raise StreamExpiredError(item.key)
    return Page(
        run=row.run,
        attended=row.attended,
        spans=row.spans,
        chunks=page_of(firsts, records, item.after_index, max_chunks=item.max_chunks, max_bytes=item.max_bytes),
        first=row.first,
        tail=row.tail,
        end=row.end,
        metadata=row.metadata,
    )
