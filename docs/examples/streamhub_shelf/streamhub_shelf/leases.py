"""The leases: one small file for each key, and one number for all generations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from streamhub import Holder, Lease, LeaseHeldError
from streamhub_shelf.directory import Directory, read_json


class ShelfLeases:
    """``LeaseManager`` in files."""

    min_ttl_seconds: float = 1.0
    default_ttl_seconds: float = 15.0

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def acquire(
        self, key: str, *, owner: str, run: str, ttl_seconds: float, above: int = 0, void: int = 0
    ) -> Lease:
        """Take the lease; asked again by the owner who has it, give the same one."""

        def acquire(now: float) -> Lease:
            held, expires = self._held(key, now)
            if held is None or held.generation <= void:
                held = Lease(key, self._next_generation(above, now), owner, run, ttl_seconds)
            elif held.owner != owner:
                raise LeaseHeldError(key, generation=held.generation, run=held.run, expires_in=expires - now)
            self._hold(held, now)
            return held

        return await self._directory.step(acquire)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Begin each lease's time anew, if it is still held."""

        def renew(now: float) -> list[bool]:
            owned = [self._held(lease.key, now)[0] == lease for lease in leases]
            for lease in [lease for lease, own in zip(leases, owned, strict=True) if own]:
                self._hold(lease, now)
            return owned

        return await self._directory.step(renew)

    async def release(self, lease: Lease) -> None:
        """Give the lease up, if it is still held."""

        def release(now: float) -> None:
            if self._held(lease.key, now)[0] == lease:
                self._directory.path(lease.key).unlink()

        await self._directory.step(release)

    async def holders(self, keys: Sequence[str]) -> Sequence[Holder | None]:
        """Say who holds each lease."""

        def holders(now: float) -> list[Holder | None]:
            found = [self._held(key, now) for key in keys]
            return [held and Holder(held.generation, held.run, expires - now) for held, expires in found]

        return await self._directory.step(holders)

    def _held(self, key: str, now: float) -> tuple[Lease | None, float]:
        facts = read_json(self._directory.path(key))
        if facts is None or facts["expires"] <= now:
            return None, 0.0
        return Lease(**facts["lease"]), facts["expires"]

    def _hold(self, lease: Lease, now: float) -> None:
        facts = {"lease": asdict(lease), "expires": now + lease.ttl_seconds}
        self._directory.write(self._directory.path(lease.key), json.dumps(facts).encode())

    def _next_generation(self, above: int, now: float) -> int:
        # Never below the clock: generations grow even if this file is lost.
        path = self._directory.root / "generation"
        last = read_json(path) or 0
        generation = max(last, above, int(now * 1000)) + 1
        self._directory.write(path, str(generation).encode())
        return generation
