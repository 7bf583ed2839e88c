"""The streams of one file: each call is one operation of the writing or the reading thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from streamhub.errors import StreamHubError
from streamhub.types import Append, Appended, Metadata, Page, Read, Retention, Seen, StreamInfo
from streamhub_sqlite import appending, opening, reading, retiring
from streamhub_sqlite.cancels import sweep_requests
from streamhub_sqlite.contents import collect
from streamhub_sqlite.database import Database
from streamhub_sqlite.feeds import SqliteChangeFeed
from streamhub_sqlite.leases import sweep_leases
from streamhub_sqlite.nudge import sweep_listeners
from streamhub_sqlite.transaction import Writing

_KEYS_PAGE = 512


class SqliteStore:
    """The streams of one file."""

    groups_streams = True
    max_append_bytes = 16 * 1024 * 1024

    def __init__(self, database: Database) -> None:
        self._database = database

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
        wanted = opening.Opening(
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
        return await self._database.write(lambda writing: opening.open_run(writing, wanted))

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """Store appends, in one transaction for all; see ``StreamStore.append``."""
        return await self._database.write(lambda writing: appending.append(writing, batch))

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """Read chunks; see ``StreamStore.read``."""
        return await self._database.read(lambda access: reading.read(access, reads))

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """Describe streams and fences, all at one moment; see ``StreamStore.describe``."""
        if touch:
            return await self._database.write(lambda writing: retiring.touch(writing, keys))
        return await self._database.read(lambda access: reading.describe(access, keys))

    def changes(self) -> AbstractAsyncContextManager[SqliteChangeFeed]:
        """Open a feed of hints; see ``StreamStore.changes``."""
        return self._database.follow_changes()

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys that begin with ``prefix``, in order; no transaction stays open meanwhile."""
        start: str | None = prefix
        inclusive = True
        while start is not None:
            page, start = await self._keys_page(start, inclusive=inclusive)
            inclusive = False
            for key in page:
                if not key.startswith(prefix):
                    return
                yield key

    async def _keys_page(self, start: str, *, inclusive: bool) -> tuple[list[str], str | None]:
        return await self._database.read(
            lambda access: reading.list_keys(access, start, _KEYS_PAGE, inclusive=inclusive)
        )

    async def delete(self, key: str) -> bool:
        """Remove a stream and leave a fence; see ``StreamStore.delete``."""
        return await self._database.write(lambda writing: retiring.delete(writing, key))

    async def sweep(self, limit: int) -> int:
        """Remove what is expired, in short transactions; see ``StreamStore.sweep``.

        Leases and cancel requests that have run out, listeners that died and discarded chunks go too.
        """
        removed, more = 0, True
        while more and removed < limit:
            left = limit - removed
            swept = await self._database.write(lambda writing, left=left: retiring.sweep(writing, left))
            removed, more = removed + swept.removed, swept.more
        await self._database.write(lambda writing: _sweep_rest(writing, limit))
        while await self._database.write(collect):
            pass
        return removed


def _sweep_rest(writing: Writing, limit: int) -> None:
    sweep_leases(writing, limit)
    sweep_requests(writing, limit)
    sweep_listeners(writing)
