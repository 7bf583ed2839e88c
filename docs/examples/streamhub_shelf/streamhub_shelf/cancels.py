"""The cancel requests: one small file for each run that somebody wants stopped."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from streamhub import CancelRequest, RunRef
from streamhub_shelf.directory import Directory, read_json
from streamhub_shelf.watch import Watch


class ShelfRequestFeed:
    """Notices the requests by looking for their files."""

    def __init__(self, cancels: ShelfCancels, watch: Watch[RunRef]) -> None:
        self._cancels = cancels
        self._watch = watch

    async def listen(self, ref: RunRef) -> None:
        """Begin."""
        self._watch.add(ref)

    async def unlisten(self, ref: RunRef) -> None:
        """Stop."""
        self._watch.remove(ref)

    async def __aiter__(self) -> AsyncIterator[CancelRequest | None]:
        async for ref in self._watch.changes():
            for request in await self._cancels.pending([ref]):
                if request is not None:
                    yield request


class ShelfCancels:
    """``CancelBus`` in files."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def request(
        self, key: str, run: str, *, reason: str | None, requested_by: str | None, ttl_seconds: float
    ) -> bool:
        """Store a request, unless there is one; whoever watches its file is told by that."""
        request = CancelRequest(key, run, reason, requested_by)

        def store(now: float) -> bool:
            if self._stored(RunRef(key, run), now) is not None:
                return False
            facts = {"request": asdict(request), "expires": now + ttl_seconds}
            self._directory.write(self._path(RunRef(key, run)), json.dumps(facts).encode())
            return True

        return await self._directory.step(store)

    async def pending(self, runs: Sequence[RunRef]) -> Sequence[CancelRequest | None]:
        """Read the stored requests of runs."""
        return await self._directory.step(lambda now: [self._stored(ref, now) for ref in runs])

    @asynccontextmanager
    async def requests(self) -> AsyncGenerator[ShelfRequestFeed]:
        """Open a feed; there is nothing to close."""
        yield ShelfRequestFeed(self, Watch(self._directory, self._path))

    def _path(self, ref: RunRef) -> Path:
        return self._directory.path(*ref)

    def _stored(self, ref: RunRef, now: float) -> CancelRequest | None:
        facts = read_json(self._path(ref))
        return CancelRequest(**facts["request"]) if facts is not None and facts["expires"] > now else None
