"""Leases: one message for each, which the server removes when it has run out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from streamhub.errors import BackendUnavailableError, LeaseHeldError
from streamhub.types import Holder, Lease
from streamhub_nats.concurrently import concurrently
from streamhub_nats.ledger import Message, OvertakenError
from streamhub_nats.recent import Recent
from streamhub_nats.record import read_versioned
from streamhub_nats.session import ATTEMPTS, Session
from streamhub_nats.stamps import MILLISECOND, SECOND
from streamhub_nats.stored import milliseconds

FORMAT = 1

_HELD = 65536
_DAY_SECONDS = 86_400.0


class _Grant(NamedTuple):
    """A lease as it is stored. ``until_ms``: it is void if it was stored later. ``ttl_ms`` 0: it was given up."""

    sequence: int
    time_ns: int
    generation: int
    owner: str
    run: str
    ttl_ms: int
    until_ms: int

    @property
    def expires_ns(self) -> int:
        """When it ends, on the server's clock."""
        if not self.ttl_ms:
            return 0  # at once, though the clock as it is known here may be behind the moment of its release
        if 0 < self.until_ms * MILLISECOND < self.time_ns:
            return self.until_ms * MILLISECOND
        return self.time_ns + self.ttl_ms * MILLISECOND

    def belongs_to(self, lease: Lease) -> bool:
        """Whether it is this lease."""
        return (self.generation, self.owner) == (lease.generation, lease.owner)

    def left(self, now_ns: int) -> float:
        """How many seconds it has left; not above 0: it has ended."""
        # A clock that is known within a round trip may show less than when this was stored, but it is later than that.
        return (self.expires_ns - max(now_ns, self.time_ns)) / SECOND


class NatsLeases:
    """The leases of one namespace, by the server's clock."""

    def __init__(self, session: Session) -> None:
        self.default_ttl_seconds = 15.0
        self.min_ttl_seconds = 0.5
        self._session = session
        self._ledger = session.leases
        self._clock = session.clock(session.leases)
        self._held: Recent[str, _Grant] = Recent(_HELD)  # by owner, as this process wrote it last

    def fit(self, replicas: int) -> None:
        """Choose times: to elect a leader among replicas takes up to ten seconds, and no lease must end by that."""
        self.min_ttl_seconds = self._session.options.min_lease_seconds or (20.0 if replicas > 1 else 0.5)
        self.default_ttl_seconds = max(self.min_ttl_seconds, 30.0 if replicas > 1 else 15.0)
        if self._session.options.min_lease_seconds is not None:
            self.default_ttl_seconds = max(self.min_ttl_seconds, 15.0)

    async def acquire(
        self, key: str, *, owner: str, run: str, ttl_seconds: float, above: int = 0, void: int = 0
    ) -> Lease:
        """Take the lease; see ``LeaseManager.acquire``."""
        self._session.context.check()
        for _ in range(ATTEMPTS):
            last = await self._last(key)
            now = await self._clock.now()
            generation = 0
            if last is not None and (left := last.left(now)) > 0 and last.generation > void:
                if last.owner != owner:
                    raise LeaseHeldError(key, generation=last.generation, run=last.run, expires_in=left)
                generation = last.generation if last.generation > above else 0
            # Never below the clock: a generation is never given twice, though nothing of a lease is kept.
            highest = max(above, now // MILLISECOND - 1, 0 if last is None else last.generation)
            lease = Lease(key, generation or highest + 1, owner, run, ttl_seconds)
            try:
                await self._write(lease, milliseconds(ttl_seconds), last, until_ms=0)
            except OvertakenError:
                continue
            return lease
        raise _crowded(key)

    async def _last(self, key: str) -> _Grant | None:
        message = await self._ledger.last(self._session.names.lease(key))
        return None if message is None else _read(message)

    async def _write(self, lease: Lease, ttl_ms: int, last: _Grant | None, *, until_ms: int) -> _Grant:
        await self._clock.look()
        now = self._clock.earliest
        facts: dict[str, Any] = {"v": FORMAT, "generation": lease.generation, "owner": lease.owner, "run": lease.run}
        facts |= {"ttl": ttl_ms, "until": until_ms}
        # It stays until the clock has passed its generation: then that cannot be given again.
        passed = min(lease.generation / 1000 - now / SECOND, _DAY_SECONDS)
        sequence = await self._ledger.write(
            self._session.names.lease(lease.key),
            json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode(),
            after=0 if last is None else last.sequence,
            alone=True,
            ttl_seconds=max(ttl_ms / 1000, passed) + 1,
        )
        grant = _Grant(sequence, now, lease.generation, lease.owner, lease.run, ttl_ms, until_ms)
        self._held.put(lease.owner, grant)
        return grant

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Begin each lease's time anew; see ``LeaseManager.renew``."""
        self._session.context.check()
        return await concurrently(leases, self._renew)

    async def _renew(self, lease: Lease) -> bool:
        await self._clock.look()
        last = self._held.get(lease.owner)
        for _ in range(ATTEMPTS):
            if last is None or not last.belongs_to(lease) or self._clock.latest >= last.expires_ns:
                last = await self._last(lease.key)
            if last is None or not last.belongs_to(lease) or self._clock.latest >= last.expires_ns:
                self._held.drop(lease.owner)
                return False
            until_ms = last.expires_ns // MILLISECOND
            try:
                grant = await self._write(lease, milliseconds(lease.ttl_seconds), last, until_ms=until_ms)
            except OvertakenError:
                last = None
                continue
            return await self._in_time(lease, grant)
        raise _crowded(lease.key)

    async def _in_time(self, lease: Lease, grant: _Grant) -> bool:
        """Say whether a renewal was stored before the lease ran out."""
        if self._clock.latest <= grant.until_ms * MILLISECOND:
            return True
        last = await self._last(lease.key)
        return last is not None and last.belongs_to(lease) and last.left(await self._clock.now()) > 0

    async def release(self, lease: Lease) -> None:
        """Give the lease up; see ``LeaseManager.release``."""
        self._session.context.check()
        self._held.drop(lease.owner)
        for _ in range(ATTEMPTS):
            last = await self._last(lease.key)
            if last is None or not last.belongs_to(lease) or not last.ttl_ms:
                return
            try:
                await self._write(lease, 0, last, until_ms=0)
            except OvertakenError:
                continue
            self._held.drop(lease.owner)
            return
        raise _crowded(lease.key)

    async def holders(self, keys: Sequence[str]) -> Sequence[Holder | None]:
        """Say who holds each lease now; see ``LeaseManager.holders``."""
        self._session.context.check()
        return await concurrently(keys, self._holder)

    async def _holder(self, key: str) -> Holder | None:
        last = await self._last(key)
        if last is None:
            return None
        left = last.left(await self._clock.now())
        return Holder(last.generation, last.run, left) if left > 0 else None


def _read(message: Message) -> _Grant:
    found = read_versioned(message.data, FORMAT, "a lease in nats")
    return _Grant(
        message.sequence,
        message.time_ns,
        found["generation"],
        found["owner"],
        found["run"],
        found["ttl"],
        found["until"],
    )


def _crowded(key: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"the lease of {key!r} is being changed all the time: it is tried again")
