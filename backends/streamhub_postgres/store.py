"""The streams of one schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from streamhub.errors import StreamHubError
from streamhub.types import Append, Appended, Metadata, Page, Read, Retention, Seen, StreamInfo
from streamhub_postgres.appending import Appender
from streamhub_postgres.feeds import PostgresChangeFeed, follow_changes
from streamhub_postgres.opening import Opening, open_run
from streamhub_postgres.queries import load
from streamhub_postgres.reading import Reading
from streamhub_postgres.session import Session
from streamhub_postgres.sweeping import Sweeper


class PostgresStore:
    """Streams as rows. One flush of all streams of a process is one statement, and one commit."""

    groups_streams = True
    max_append_bytes = 16 * 1024 * 1024

    def __init__(self, session: Session) -> None:
        options = session.options
        self._session = session
        self._queries = load("stream.sql", options.schema)
        records = load("record.sql", options.schema)
        self._reading = Reading(session, self._queries, records)
        self._sweeper = Sweeper(session)
        self._appender = Appender(
            load("append.sql", options.schema),
            find=self._queries["find_for_append"],
            oldest=records["oldest"],
            notifies=options.notifies,
            push_bytes=options.push_bytes,
            relaxed=options.durability == "relaxed",
            where=session.target.where,
        )

    async def open(
        self,
        key: str,
        generation: int,
        *,
        owner: str,
        run: str,
        expect: Seen | None,
        resume: bool,
        attended: bool = True,
        metadata: Metadata | None = None,
        retention: Retention,
    ) -> StreamInfo:
        """Begin a run, or continue it; see ``StreamStore.open``."""
        wanted = Opening(
            key=key,
            generation=generation,
            owner=owner,
            run=run,
            expect=expect,
            resume=resume,
            attended=attended,
            metadata=metadata,
            retention=retention,
        )
        session = self._session
        # Who has acquired goes before those who wait to.
        return await session.run(
            session.changing, lambda wire: open_run(wire, self._queries, session.options.notifies, wanted), urgent=True
        )

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """Store appends, in one statement; see ``StreamStore.append``."""
        return await self._session.run(self._session.appending, lambda wire: self._appender.append(wire, batch))

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """Read chunks; see ``StreamStore.read``."""
        return await self._reading.read(reads)

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """Describe streams and fences; see ``StreamStore.describe``."""
        return await self._reading.describe(keys, touch=touch)

    def changes(self) -> AbstractAsyncContextManager[PostgresChangeFeed]:
        """Open a feed of hints; see ``StreamStore.changes``."""
        return follow_changes(self._session, self._queries["heads"])

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys that begin with ``prefix``, in order; see ``StreamStore.keys``."""
        return self._reading.keys(prefix)

    async def delete(self, key: str) -> bool:
        """Remove a stream and leave a fence; see ``StreamStore.delete``."""
        ((count, _),) = await self._session.fetch(
            self._session.changing, self._queries["delete"], key, self._session.options.notifies
        )
        return count == 1

    async def sweep(self, limit: int) -> int:
        """Remove what is over, beside other hubs that may do so; see ``StreamStore.sweep``."""
        return await self._sweeper.sweep(limit)
