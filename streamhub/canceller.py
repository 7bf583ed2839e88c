"""``hub.cancel``: a durable request first, then whatever brings the run to its end."""

from __future__ import annotations

import os
import secrets
import time

from streamhub.errors import (
    DataLostError,
    LeaseHeldError,
    OffsetConflictError,
    OpenConflictError,
    ResumeRefusedError,
    StaleGenerationError,
    StreamEndedError,
    StreamHubError,
)
from streamhub.feed import Feed, Feeds
from streamhub.keeper import HeldLease, LeaseKeeper
from streamhub.outage import SHORTEST_PAUSE_SECONDS, ride
from streamhub.protocols import CancelBus, LeaseManager, StreamStore
from streamhub.settings import HubSettings
from streamhub.tasks import TaskOwner
from streamhub.types import Append, CancelRequest, CancelResult, End, RunRef, StreamInfo

OVERTAKEN = (LeaseHeldError, OpenConflictError, StaleGenerationError, StreamEndedError, OffsetConflictError)


class Canceller:
    """Serves the cancels of one hub."""

    def __init__(
        self,
        store: StreamStore,
        leases: LeaseManager,
        cancels: CancelBus,
        *,
        keeper: LeaseKeeper,
        feeds: Feeds,
        tasks: TaskOwner,
        settings: HubSettings,
    ) -> None:
        self._store = store
        self._leases = leases
        self._cancels = cancels
        self._keeper = keeper
        self._feeds = feeds
        self._tasks = tasks
        self._settings = settings

    async def cancel(
        self, key: str, run: str | None, *, reason: str | None, requested_by: str | None, wait_seconds: float
    ) -> CancelResult:
        """See ``Hub.cancel``."""
        deadline = time.monotonic() + wait_seconds
        info = await self._describe(key)
        if run is None:
            run = await self._running(key, info)
        if run is None:
            return CancelResult(state="nothing")
        if info is not None and info.run == run and info.end is not None:
            return CancelResult(state="ended", run=run, end=info.end)
        await ride(
            lambda: self._cancels.request(
                key,
                run,
                reason=reason,
                requested_by=requested_by,
                ttl_seconds=self._settings.unfinished_seconds,
            ),
            self._settings.outage_seconds,
        )
        feed = await self._feeds.attach(key)
        try:
            return await self._outcome(feed, RunRef(key, run), deadline)
        finally:
            self._feeds.detach(feed)

    async def _running(self, key: str, info: StreamInfo | None) -> str | None:
        holder = (await ride(lambda: self._leases.holders([key]), self._settings.outage_seconds))[0]
        if holder is not None and holder.generation > (0 if info is None else info.generation):
            return holder.run  # acquired, not opened yet
        return info.run if info is not None and info.state == "open" else None

    async def _outcome(self, feed: Feed, ref: RunRef, deadline: float) -> CancelResult:
        while True:
            version = feed.version
            info = await self._describe(ref.key)
            if info is not None and info.run == ref.run and info.end is not None:
                state = "cancelled" if info.end.state == "cancelled" else "ended"
                return CancelResult(state=state, run=ref.run, end=info.end)
            pause = None
            if info is not None and info.run == ref.run and info.state == "open":
                pause = await self._end_if_dead(info)
                if pause == 0:
                    continue
            left = deadline - time.monotonic()
            if left <= 0 or self._feeds.closed_with is not None:
                return CancelResult(state="requested", run=ref.run)
            await feed.wait(version, left if pause is None else min(left, pause))

    async def _end_if_dead(self, info: StreamInfo) -> float:
        """Write the end of a run that nobody holds; return 0 to look again, else when its lease may have run out."""
        holder = (await ride(lambda: self._leases.holders([info.key]), self._settings.outage_seconds))[0]
        if holder is not None and holder.generation >= info.generation:
            return max(holder.expires_in, SHORTEST_PAUSE_SECONDS)
        return await self._tasks.settle(self._end_dead(info), _nothing, "end of a dead run")

    async def _end_dead(self, info: StreamInfo) -> float:
        request = await self._pending(info)
        try:
            held = await self._keeper.acquire(
                info.key, owner=secrets.token_urlsafe(12), run=info.run, above=info.generation, void=0
            )
        except LeaseHeldError as exc:
            return max(exc.expires_in, SHORTEST_PAUSE_SECONDS)
        try:
            await self._write_end(info, held, request)
        except (*OVERTAKEN, ResumeRefusedError, DataLostError):
            pass  # somebody else got further: look again
        finally:
            await self._keeper.release(held)
        return 0

    async def _write_end(self, info: StreamInfo, held: HeldLease, request: CancelRequest | None) -> None:
        lease, seconds = held.lease, self._settings.outage_seconds

        async def attempt() -> StreamInfo:
            held.check()
            return await self._store.open(
                lease.key,
                lease.generation,
                owner=lease.owner,
                run=info.run,
                expect=info.seen,
                resume=True,
                attended=info.attended,
                retention=info.retention,
            )

        opened = await ride(attempt, seconds)
        end = End(
            state="cancelled",
            reason=None if request is None else request.reason,
            requested_by=None if request is None else request.requested_by,
        )
        append = Append(lease.key, lease.generation, opened.tail + 1, (), os.urandom(12), None, end)
        await ride(lambda: self._append(append, held), seconds)

    async def _append(self, append: Append, held: HeldLease) -> None:
        held.check()
        answer = (await self._store.append([append]))[0]
        if isinstance(answer, StreamHubError):
            raise answer

    async def _pending(self, info: StreamInfo) -> CancelRequest | None:
        refs = [RunRef(info.key, info.run)]
        return (await ride(lambda: self._cancels.pending(refs), self._settings.outage_seconds))[0]

    async def _describe(self, key: str) -> StreamInfo | None:
        return (await ride(lambda: self._store.describe([key]), self._settings.outage_seconds))[0]


async def _nothing(pause: float) -> None:
    """Undo nothing: an end that was asked for stays written."""
