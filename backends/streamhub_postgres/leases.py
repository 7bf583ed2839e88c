"""Leases: a row for each, by the server's clock."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub.errors import BackendUnavailableError, LeaseHeldError
from streamhub.types import Holder, Lease
from streamhub_postgres.queries import load
from streamhub_postgres.session import Session
from streamhub_postgres.wire import Wire

# How often an acquisition finds a lease held, and then nobody who holds it.
_ATTEMPTS = 20


class PostgresLeases:
    """The leases of one schema."""

    min_ttl_seconds = 0.2
    default_ttl_seconds = 15.0

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queries = load("lease.sql", session.options.schema)

    async def acquire(
        self, key: str, *, owner: str, run: str, ttl_seconds: float, above: int = 0, void: int = 0
    ) -> Lease:
        """Take the lease; see ``LeaseManager.acquire``."""

        async def job(wire: Wire) -> Lease:
            least, useless = above, void
            for _ in range(_ATTEMPTS):
                rows = await wire.fetch(self._queries["acquire"], key, owner, run, ttl_seconds, least, useless)
                for generation, counted in rows:
                    if generation > counted:
                        return Lease(key, generation, owner, run, ttl_seconds)
                    least, useless = max(least, counted), generation
                if rows:
                    continue
                # A statement that lost a race may have judged by what it saw before: this one sees what is.
                for _, generation, holder, seconds in await wire.fetch(self._queries["holders"], [key]):
                    raise LeaseHeldError(key, generation=generation, run=holder, expires_in=max(seconds, 1e-6))
            raise BackendUnavailableError(f"the lease of {key!r} changes hands all the time")

        return await self._session.run(self._session.changing, job)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Begin each lease's time anew; see ``LeaseManager.renew``."""
        # Each once, and by key: two that renew the same leases wait for each other in one order.
        ordered = sorted({(lease.key, lease.generation, lease.owner, lease.ttl_seconds) for lease in leases})
        rows = await self._session.fetch(
            self._session.reading,
            self._queries["renew"],
            [key for key, _, _, _ in ordered],
            [generation for _, generation, _, _ in ordered],
            [owner for _, _, owner, _ in ordered],
            [seconds for _, _, _, seconds in ordered],
            urgent=True,  # a page that comes later costs time, a renewal that comes late costs a run
        )
        owned = {ordered[int(place) - 1][:3] for (place,) in rows}
        return [(lease.key, lease.generation, lease.owner) in owned for lease in leases]

    async def release(self, lease: Lease) -> None:
        """Give the lease up; see ``LeaseManager.release``."""
        await self._session.fetch(
            self._session.changing,
            self._queries["release"],
            lease.key,
            lease.generation,
            lease.owner,
            urgent=True,  # somebody may be waiting for it
        )

    async def holders(self, keys: Sequence[str]) -> Sequence[Holder | None]:
        """Say who holds each lease now; see ``LeaseManager.holders``."""
        rows = await self._session.fetch(self._session.reading, self._queries["holders"], list(set(keys)))
        found = {key: Holder(generation, run, seconds) for key, generation, run, seconds in rows if seconds > 0}
        return [found.get(key) for key in keys]
