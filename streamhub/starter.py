"""Starting a generation: describe, acquire, listen for cancels, open, read pending cancels, then the body.

Every decision rests on one describe. Whatever shows that it no longer holds (a held lease, a conflict, a stale
generation) releases what is held and begins again at describe.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamhub.cancellation import CancelDelivery
from streamhub.committer import Committer
from streamhub.errors import (
    LeaseHeldError,
    OpenConflictError,
    StaleGenerationError,
    StreamEndedError,
    StreamHubError,
    StreamUnfinishedError,
)
from streamhub.interrupt import Interrupter
from streamhub.keeper import HeldLease, LeaseKeeper
from streamhub.lane import Lane
from streamhub.observer import Event, Observer, notify
from streamhub.outage import SHORTEST_PAUSE_SECONDS, ride
from streamhub.producer import Producer
from streamhub.protocols import LeaseManager, StreamStore
from streamhub.reader import PageReader
from streamhub.run import CancelSwitch, Run
from streamhub.settings import HubSettings
from streamhub.tasks import TaskOwner
from streamhub.types import Joined, Metadata, Retention, RunRef, StreamInfo

Unfinished: TypeAlias = Literal["raise", "resume", "replace"]
"""What to do with a run whose producer died: refuse, continue it (the same run only), or begin another."""

RETRY_SECONDS = 0.25
"""How often a waiting start looks again: a holder may renew, release or end at any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """What a caller asks of produce or start, checked."""

    key: str
    run: str | None
    unfinished: Unfinished
    wait_seconds: float
    metadata: Metadata | None
    retention: Retention
    handover: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one describe allows: begin ``run`` anew, or resume it."""

    found: StreamInfo | None
    run: str
    resume: bool


class Starter:
    """Opens the runs of one hub."""

    def __init__(
        self,
        store: StreamStore,
        leases: LeaseManager,
        *,
        keeper: LeaseKeeper,
        delivery: CancelDelivery,
        committer: Committer,
        reader: PageReader,
        tasks: TaskOwner,
        settings: HubSettings,
        observer: Observer | None,
    ) -> None:
        self.runs: set[Run] = set()
        self.refuse_with: StreamHubError | None = None
        self._store = store
        self._leases = leases
        self._keeper = keeper
        self._delivery = delivery
        self._committer = committer
        self._reader = reader
        self._tasks = tasks
        self._settings = settings
        self._observer = observer
        self._idle = asyncio.Event()
        self._opening = 0

    async def idle(self, timeout_seconds: float | None) -> None:
        """Return once no run is left, nor being opened, or after the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.runs or self._opening:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass

    def _finished(self, run: Run) -> None:
        self.runs.discard(run)
        self._idle.set()

    async def start(self, request: StartRequest) -> Run:
        """Open a run, waiting for a lease as long as was asked."""
        started = await self._start(request, join=False)
        if isinstance(started, Joined):
            raise TypeError("joined without being asked to")
        return started

    async def start_or_join(self, request: StartRequest) -> Run | Joined:
        """Open a run, or find that the one asked for is being produced already."""
        return await self._start(request, join=True)

    async def _start(self, request: StartRequest, *, join: bool) -> Run | Joined:
        deadline = time.monotonic() + request.wait_seconds
        while True:
            if self.refuse_with is not None:
                raise self.refuse_with
            try:
                plan = await self._decide(request)
                return await self._tasks.settle(self._attempt(request, plan), _give_up, "start")
            except LeaseHeldError as held:
                found = await self._describe(request.key)
                if found is not None and found.state != "open" and found.generation >= held.generation:
                    continue  # it has ended since: its lease is not in the way
                if join and request.run in (None, held.run):
                    return Joined(request.key, held.run, held.generation)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                await asyncio.sleep(min(left, RETRY_SECONDS, max(held.expires_in, SHORTEST_PAUSE_SECONDS)))
            except (OpenConflictError, StaleGenerationError):
                await asyncio.sleep(random.uniform(0, 0.01))  # somebody else got further: decide anew

    async def _decide(self, request: StartRequest) -> _Plan:
        found = await self._describe(request.key)
        name = request.run or secrets.token_urlsafe(12)
        if found is None:
            return _Plan(None, name, resume=False)
        if found.end is not None and found.run == request.run:
            raise StreamEndedError(request.key, found.end, run=found.run)
        if found.state != "open" or request.unfinished == "replace":
            return _Plan(found, name, resume=False)
        if request.unfinished == "resume" and request.run in (None, found.run):
            return _Plan(found, found.run, resume=True)
        holder = (await ride(lambda: self._leases.holders([request.key]), self._settings.outage_seconds))[0]
        if holder is not None:
            raise LeaseHeldError(
                request.key, generation=holder.generation, run=holder.run, expires_in=holder.expires_in
            )
        again = await self._describe(request.key)
        if again is None or again.seen != found.seen:
            # It ended, and its lease was released, between the two questions.
            raise OpenConflictError(request.key, found=None if again is None else again.seen)
        raise StreamUnfinishedError(request.key, found.run)

    async def _describe(self, key: str) -> StreamInfo | None:
        return (await ride(lambda: self._store.describe([key]), self._settings.outage_seconds))[0]

    async def _attempt(self, request: StartRequest, plan: _Plan) -> Run:
        self._opening += 1
        try:
            return await self._acquire_and_open(request, plan)
        finally:
            self._opening -= 1
            self._idle.set()

    async def _acquire_and_open(self, request: StartRequest, plan: _Plan) -> Run:
        owner = secrets.token_urlsafe(12)
        known = 0 if plan.found is None else plan.found.generation
        ended = plan.found is not None and plan.found.state != "open"
        held = await self._keeper.acquire(
            request.key, owner=owner, run=plan.run, above=known, void=known if ended else 0
        )
        stop = Interrupter()
        switch = CancelSwitch(RunRef(request.key, plan.run), stop, self._observer)
        try:
            await self._delivery.listen(switch.ref, switch)
            opened = await self._open(request, plan, held)
            held.check()
        except BaseException:
            self._delivery.unlisten(switch.ref, switch)
            await self._keeper.release(held)
            raise
        run = self._make_run(request, opened, held, stop, switch, resumed=plan.resume)
        try:
            await ride(lambda: self._delivery.check([switch.ref]), self._settings.outage_seconds)
        except BaseException as exc:
            run.leave(exc)
            await run.finish()
            raise
        if plan.resume:
            self._notify_takeover(opened)
        if self.refuse_with is not None:
            run.interrupt(self.refuse_with)
        return run

    async def _open(self, request: StartRequest, plan: _Plan, held: HeldLease) -> StreamInfo:
        lease = held.lease

        async def attempt() -> StreamInfo:
            held.check()  # without a lease nothing is written
            return await self._store.open(
                lease.key,
                lease.generation,
                owner=lease.owner,
                run=plan.run,
                expect=None if plan.found is None else plan.found.seen,
                resume=plan.resume,
                metadata=request.metadata,
                retention=request.retention,
            )

        return await ride(attempt, self._settings.outage_seconds)

    def _make_run(
        self,
        request: StartRequest,
        opened: StreamInfo,
        held: HeldLease,
        stop: Interrupter,
        switch: CancelSwitch,
        *,
        resumed: bool,
    ) -> Run:
        lane = Lane(
            opened.key,
            opened.generation,
            opened.tail,
            max_buffer_bytes=self._settings.max_buffer_bytes,
            max_append_bytes=self._store.max_append_bytes,
            outage_seconds=self._settings.outage_seconds,
            check=held.check,
            reopen=lambda: self._reopen(opened, held),
            on_error=stop.interrupt,
        )
        held.on_lost = lane.fail
        held.touch_seconds = opened.retention.unfinished_seconds / 4
        self._committer.add(lane)
        producer = Producer(opened, resumed=resumed, lane=lane, stop=stop, reader=self._reader, settings=self._settings)
        run = Run(
            producer,
            lane,
            held,
            stop,
            switch,
            keeper=self._keeper,
            delivery=self._delivery,
            handover=request.handover,
            on_finished=self._finished,
        )
        self.runs.add(run)
        return run

    async def _reopen(self, opened: StreamInfo, held: HeldLease) -> int:
        """Open the stream again, as the same generation, after the store lost it; return the tail that is left."""
        held.check()
        found = await self._describe(opened.key)
        resume = found is not None and found.state == "open" and found.run == opened.run
        plan = _Plan(found, opened.run, resume=resume)
        request = StartRequest(
            key=opened.key,
            run=opened.run,
            unfinished="resume",
            wait_seconds=0,
            metadata=None if resume else opened.metadata,
            retention=opened.retention,
            handover=False,
        )
        return (await self._open(request, plan, held)).tail

    def _notify_takeover(self, info: StreamInfo) -> None:
        notify(self._observer, Event(name="takeover", key=info.key, run=info.run, generation=info.generation))


async def _give_up(run: Run) -> None:
    """End a run whose caller was cancelled before its body began."""
    run.leave(asyncio.CancelledError())
    await run.finish()
