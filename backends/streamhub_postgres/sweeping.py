"""Housekeeping, some rows at a time, each time in a statement of its own: nobody waits for it for long."""

from __future__ import annotations

from streamhub_postgres.queries import load
from streamhub_postgres.session import Session

_ROWS = 500
_CONTENTS = 20
_RECORDS = 250

# How many of its statements one sweep makes of each kind, beside those for streams: the next one goes on.
_ROUNDS = 200


class Sweeper:
    """Removes what is over. Any number of them may be at work: rows that one has are left out by the others."""

    def __init__(self, session: Session) -> None:
        self._session = session
        schema = session.options.schema
        self._streams = load("stream.sql", schema)["sweep"]
        self._garbage = load("record.sql", schema)["collect"]
        self._leases = load("lease.sql", schema)["sweep"]
        self._requests = load("request.sql", schema)["sweep"]

    async def sweep(self, limit: int) -> int:
        """Remove up to ``limit`` streams and fences, and what else is over; see ``StreamStore.sweep``."""
        removed = await self._sweep_streams(limit)
        for query in (self._leases, self._requests):
            for _ in range(_ROUNDS):
                ((seen,),) = await self._session.fetch(self._session.changing, query, _ROWS)
                if seen < _ROWS:
                    break
        await self._collect()
        return removed

    async def _sweep_streams(self, limit: int) -> int:
        removed = 0
        while removed < limit:
            rows = min(limit - removed, _ROWS)
            ((seen, gone, _),) = await self._session.fetch(
                self._session.changing, self._streams, rows, self._session.options.notifies
            )
            removed += gone
            if seen < rows:
                break
        return removed

    async def _collect(self) -> None:
        for _ in range(_ROUNDS):
            ((seen, gone),) = await self._session.fetch(self._session.changing, self._garbage, _CONTENTS, _RECORDS)
            if not seen and not gone:
                break
