"""Cancel requests: rows, notified as stream changes are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from streamhub.types import CancelRequest, RunRef
from streamhub_postgres.feeds import PostgresRequestFeed, follow_requests
from streamhub_postgres.heads import read_said, write_request, write_said
from streamhub_postgres.queries import load
from streamhub_postgres.session import Session


class PostgresCancels:
    """The cancel requests of one schema."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queries = load("request.sql", session.options.schema)

    async def request(
        self, key: str, run: str, *, reason: str | None, requested_by: str | None, ttl_seconds: float
    ) -> bool:
        """Store a request, then notify; see ``CancelBus.request``."""
        said = write_said(CancelRequest(key, run, reason, requested_by))
        ((stored, _),) = await self._session.fetch(
            self._session.changing,
            self._queries["store"],
            key,
            run,
            said,
            ttl_seconds,
            self._session.options.notifies,
            write_request(RunRef(key, run), said),
        )
        return stored == 1

    async def pending(self, runs: Sequence[RunRef]) -> Sequence[CancelRequest | None]:
        """Read stored requests; see ``CancelBus.pending``."""
        rows = await self._session.fetch(
            self._session.reading,
            self._queries["pending"],
            [ref.key for ref in map(_ref, runs)],
            [ref.run for ref in map(_ref, runs)],
        )
        found: dict[int, str] = dict(rows)
        return [
            None if (said := found.get(place)) is None else read_said(_ref(ref), said)
            for place, ref in enumerate(runs, 1)
        ]

    def requests(self) -> AbstractAsyncContextManager[PostgresRequestFeed]:
        """Open a feed of notifications; see ``CancelBus.requests``."""
        return follow_requests(self._session, self.pending)


def _ref(ref: RunRef) -> RunRef:
    return RunRef(*ref)
