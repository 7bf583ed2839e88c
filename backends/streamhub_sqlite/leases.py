"""Leases: rows with an expiry on the file's clock, and one counter of generations for the whole file."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub.errors import LeaseHeldError
from streamhub.types import Holder, Lease
from streamhub_sqlite.clock import milliseconds
from streamhub_sqlite.database import Database
from streamhub_sqlite.queries import load
from streamhub_sqlite.transaction import Reading, Writing

_SQL = load("lease.sql")


class SqliteLeases:
    """The leases of one file."""

    min_ttl_seconds = 0.2
    default_ttl_seconds = 15.0

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(
        self, key: str, *, owner: str, run: str, ttl_seconds: float, above: int = 0, void: int = 0
    ) -> Lease:
        """Take the lease; see ``LeaseManager.acquire``. Durable on return."""

        def operation(writing: Writing) -> Lease:
            return _acquire(writing, Lease(key, above, owner, run, ttl_seconds), void)

        return await self._database.write(operation)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Begin each lease's time anew, all in one transaction; see ``LeaseManager.renew``."""
        return await self._database.write(lambda writing: [_renew(writing, lease) for lease in leases])

    async def release(self, lease: Lease) -> None:
        """Give the lease up; see ``LeaseManager.release``."""
        values = (lease.key, lease.owner, lease.generation)
        await self._database.write(lambda writing: writing.write(_SQL["release"], values))

    async def holders(self, keys: Sequence[str]) -> Sequence[Holder | None]:
        """Say who holds each lease now; see ``LeaseManager.holders``."""
        return await self._database.read(lambda reading: [_holder(reading, key) for key in keys])


def _acquire(writing: Writing, wanted: Lease, void: int) -> Lease:
    """Decide and store; ``wanted.generation`` is the one to exceed."""
    now_ms = writing.now_ms
    generation = 0
    found = writing.row(_SQL["find"], (wanted.key,))
    if found is not None and found[3] > now_ms and found[0] > void:
        if found[1] != wanted.owner:
            expires_in = (found[3] - now_ms) / 1000
            raise LeaseHeldError(wanted.key, generation=found[0], run=found[2], expires_in=expires_in)
        generation = found[0]
    if generation <= wanted.generation:
        generation = writing.file.generation = max(writing.file.generation, wanted.generation) + 1
    lease = Lease(wanted.key, generation, wanted.owner, wanted.run, wanted.ttl_seconds)
    expires_ms = now_ms + milliseconds(lease.ttl_seconds)
    writing.write(_SQL["put"], (lease.key, generation, lease.owner, lease.run, expires_ms))
    return lease


def _renew(writing: Writing, lease: Lease) -> bool:
    expires_ms = writing.now_ms + milliseconds(lease.ttl_seconds)
    values = (expires_ms, lease.key, lease.owner, lease.generation, writing.now_ms)
    return writing.write(_SQL["renew"], values) == 1


def _holder(reading: Reading, key: str) -> Holder | None:
    found = reading.row(_SQL["find"], (key,))
    if found is None or found[3] <= reading.now_ms:
        return None
    return Holder(found[0], found[2], (found[3] - reading.now_ms) / 1000)


def sweep_leases(writing: Writing, limit: int) -> None:
    """Remove leases that have run out."""
    writing.write(_SQL["sweep"], (writing.now_ms, limit))
