"""The leases of a namespace."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub.errors import LeaseHeldError
from streamhub.types import Holder, Lease
from streamhub_memory.namespace import HeldLease, Namespace
from streamhub_memory.session import Session


class MemoryLeaseManager:
    """``LeaseManager`` in memory, on the namespace's clock."""

    min_ttl_seconds: float = 0.05
    default_ttl_seconds: float = 15.0

    def __init__(self, session: Session) -> None:
        self._session = session

    async def acquire(
        self, key: str, *, owner: str, run: str, ttl_seconds: float, above: int = 0, void: int = 0
    ) -> Lease:
        """Take the lease."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            held = namespace.live_lease(key, now)
            if held is None or held.lease.generation <= void:
                lease = Lease(key, namespace.next_generation(above), owner, run, ttl_seconds)
            elif held.lease.owner == owner:
                lease = held.lease
            else:
                raise LeaseHeldError(
                    key, generation=held.lease.generation, run=held.lease.run, expires_in=held.expires - now
                )
            _hold(namespace, lease, now)
            return lease

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Begin each lease's time anew."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            owned = [_owns(namespace.live_lease(lease.key, now), lease) for lease in leases]
            for lease, own in zip(leases, owned, strict=True):
                if own:
                    _hold(namespace, lease, now)
            return owned

    async def release(self, lease: Lease) -> None:
        """Give the lease up."""
        namespace = self._session.namespace
        with namespace.lock:
            if _owns(namespace.leases.get(lease.key), lease):
                del namespace.leases[lease.key]

    async def holders(self, keys: Sequence[str]) -> Sequence[Holder | None]:
        """Say who holds each lease now."""
        namespace = self._session.namespace
        with namespace.lock:
            now = namespace.clock()
            return [_holder(namespace.live_lease(key, now), now) for key in keys]


def _hold(namespace: Namespace, lease: Lease, now: float) -> None:
    expires = now + lease.ttl_seconds
    namespace.leases[lease.key] = HeldLease(lease, expires)
    namespace.lease_agenda.plan(lease.key, expires)


def _owns(held: HeldLease | None, lease: Lease) -> bool:
    return held is not None and (held.lease.owner, held.lease.generation) == (lease.owner, lease.generation)


def _holder(held: HeldLease | None, now: float) -> Holder | None:
    return None if held is None else Holder(held.lease.generation, held.lease.run, held.expires - now)
