"""Keeping leases: acquire, renew a third of the way, and know at every moment whether one may still write.

A renewal answers *owned* or *lost*; one that raises is *unknown*, and only this process's monotonic clock ends the
doubt: a lease is good until the sending of its last successful renewal plus its time-to-live.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from streamhub.errors import BackendUnavailableError, LeaseLostError
from streamhub.observer import Event, Observer, notify
from streamhub.outage import ride
from streamhub.protocols import LeaseManager
from streamhub.tasks import TaskOwner
from streamhub.types import Lease

logger: logging.Logger = logging.getLogger("streamhub")


class HeldLease:
    """A lease of this process, with the moment until which it is certainly ours."""

    def __init__(self, lease: Lease, sent: float) -> None:
        self.lease = lease
        self.lost: LeaseLostError | None = None
        self.unrenewed: Exception | None = None  # what the last renewal raised, unless it succeeded
        self.on_lost: Callable[[LeaseLostError], None] | None = None
        self.renew_at: float = 0.0
        self.touch_seconds: float = 0.0  # how often the stream's life is extended; 0 until it is open
        self.touched_at = sent
        self._deadline = 0.0
        self.renewed(sent)

    def renewed(self, sent: float) -> None:
        """Note a successful renewal that was sent at ``sent``, on the monotonic clock."""
        self.unrenewed = None
        self._deadline = sent + self.lease.ttl_seconds
        self.renew_at = sent + self.lease.ttl_seconds / 3

    @property
    def deadline(self) -> float:
        """The monotonic moment at which, without a renewal, the lease counts as lost."""
        return self._deadline

    def check(self) -> None:
        """Raise ``LeaseLostError`` unless the lease is certainly still ours."""
        if self.lost is None and time.monotonic() >= self._deadline:
            self.lose()
        if self.lost is not None:
            raise self.lost

    def lose(self) -> None:
        """Declare the lease lost and tell its producer, once."""
        if self.lost is None:
            why = "is lost: another may have taken over"
            if time.monotonic() >= self._deadline:
                what = "none was answered yet" if self.unrenewed is None else repr(self.unrenewed)
                why += f", for no renewal came through within {self.lease.ttl_seconds:g} s ({what})"
            self.lost = LeaseLostError(self.lease.key, generation=self.lease.generation, why=why)
            if self.on_lost is not None:
                self.on_lost(self.lost)


class LeaseKeeper:
    """All leases of one hub, renewed together in one task."""

    def __init__(
        self,
        leases: LeaseManager,
        tasks: TaskOwner,
        *,
        ttl_seconds: float,
        outage_seconds: float,
        observer: Observer | None,
        after_renewal: Callable[[Sequence[HeldLease]], Awaitable[None]],
    ) -> None:
        self.ttl_seconds = ttl_seconds
        self._leases = leases
        self._tasks = tasks
        self._outage_seconds = outage_seconds
        self._observer = observer
        self._after_renewal = after_renewal
        self._held: dict[str, HeldLease] = {}  # by owner: a successor in this process may hold the same key
        self._task: asyncio.Task[None] | None = None
        self._follow_up: asyncio.Task[None] | None = None

    async def acquire(self, key: str, *, owner: str, run: str, above: int, void: int) -> HeldLease:
        """Acquire a lease and keep it until ``release``; see ``LeaseManager.acquire``."""
        sent = 0.0

        async def attempt() -> Lease:
            nonlocal sent
            sent = time.monotonic()
            return await self._leases.acquire(
                key, owner=owner, run=run, ttl_seconds=self.ttl_seconds, above=above, void=void
            )

        held = HeldLease(await ride(attempt, self._outage_seconds), sent)
        self._held[owner] = held
        if self._task is None or self._task.done():
            self._task = self._tasks.spawn(self._keep(), "lease keeper")
        return held

    def forget(self, held: HeldLease) -> None:
        """Stop renewing, without releasing."""
        self._held.pop(held.lease.owner, None)

    async def release(self, held: HeldLease) -> None:
        """Stop renewing and release; an unreachable backend only means that the lease runs out by itself."""
        self.forget(held)
        with contextlib.suppress(BackendUnavailableError):
            await self._leases.release(held.lease)

    async def _keep(self) -> None:
        while self._held:
            now = time.monotonic()
            wake_at = min(min(held.renew_at, held.deadline) for held in self._held.values())
            if wake_at > now:
                await asyncio.sleep(wake_at - now)
                now = time.monotonic()
            for held in [held for held in self._held.values() if held.deadline <= now]:
                self._lose(held)
            # Those due within half a period ride along: leases fall into step, and calls stay few.
            due = [held for held in self._held.values() if held.renew_at <= now + self.ttl_seconds / 6]
            if due:
                await self._renew(due)

    async def _renew(self, due: list[HeldLease]) -> None:
        sent = time.monotonic()
        until = min(min(held.deadline for held in due), sent + self.ttl_seconds / 3)
        try:
            async with asyncio.timeout(until - sent):
                answers = await self._leases.renew([held.lease for held in due])
        except Exception as exc:
            if not isinstance(exc, (BackendUnavailableError, TimeoutError)):
                logger.exception("renew raised what no backend may raise")
            for held in due:  # unknown, not lost: ask again soon
                held.unrenewed = exc
                held.renew_at = time.monotonic() + min(self.ttl_seconds / 10, 1.0)
            return
        for held, owned in zip(due, answers, strict=True):
            if owned:
                held.renewed(sent)
            else:
                self._lose(held)
        self._follow([held for held, owned in zip(due, answers, strict=True) if owned])

    def _follow(self, renewed: list[HeldLease]) -> None:
        # What follows a renewal must not delay the next one; a slow backend only makes it rarer.
        if renewed and (self._follow_up is None or self._follow_up.done()):
            self._follow_up = self._tasks.spawn(self._after(renewed), "after renewal")

    async def _after(self, renewed: list[HeldLease]) -> None:
        with contextlib.suppress(BackendUnavailableError):
            await self._after_renewal(renewed)

    def _lose(self, held: HeldLease) -> None:
        self.forget(held)
        held.lose()
        lease = held.lease
        notify(self._observer, Event(name="lease_lost", key=lease.key, run=lease.run, generation=lease.generation))
