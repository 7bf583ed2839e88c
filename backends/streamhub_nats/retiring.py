"""Delete and expiry: a fence takes the place of all records, in one step, and the server removes it in time."""

from __future__ import annotations

from dataclasses import replace

from streamhub.errors import UnsupportedFormatError
from streamhub_nats.agenda import Agenda, Due
from streamhub_nats.chain import Chain, crowded
from streamhub_nats.ledger import OvertakenError
from streamhub_nats.record import write_opening
from streamhub_nats.session import ATTEMPTS
from streamhub_nats.stamps import MILLISECOND
from streamhub_nats.stored import Stored, milliseconds

_GRACE_MS = 3_600_000
"""How long the entry of a stream that is not there is kept: whoever put it there may be about to open it."""


class Retirer:
    """Puts fences in the place of streams."""

    def __init__(self, chain: Chain, agenda: Agenda) -> None:
        self._chain = chain
        self._agenda = agenda

    async def delete(self, key: str) -> bool:
        """Remove a stream and leave a fence; see ``StreamStore.delete``."""
        for _ in range(ATTEMPTS):
            stored = await self._chain.stored(key)
            now = await self._chain.now()
            if stored is None or stored.state_at(now) not in ("open", "ended"):
                return False
            fence_ms = milliseconds(stored.opening.retention.fence_seconds)
            try:
                fence = await self._fence(key, stored, "deleted", fence_ms)
            except OvertakenError:
                continue
            await self._disarm(key, stored, before=fence.sequence)
            return True
        raise crowded(key)

    async def _fence(self, key: str, stored: Stored, state: str, fence_ms: int) -> Stored:
        opening = replace(stored.opening, metadata={})
        info = stored.info(key, stored.time_ns)
        record = stored.followed_by(
            "fence",
            state=state,
            tail=stored.record.tail if info is None else info.tail,
            first=(stored.record.tail if info is None else info.tail) + 1,
            size_bytes=0,
            opened_at=0,
            metadata_at=0,
            life_ms=0,
            fence_ms=fence_ms,
            until_ms=0,
            end=None if stored.void else stored.record.end,
            marks=(),
        )
        fence = await self._chain.write(
            key,
            record,
            write_opening(opening),
            base=stored,
            opening=opening,
            alone=True,
            ttl_seconds=fence_ms / 1000,
        )
        self._chain.tails.drop(key)
        return fence

    async def _disarm(self, key: str, stored: Stored, *, before: int) -> None:
        retention = stored.opening.retention
        await self._agenda.disarm(
            key,
            milliseconds(retention.unfinished_seconds),
            milliseconds(retention.ended_seconds),
            before=before,
        )

    async def sweep(self, limit: int) -> int:
        """Put fences in the place of expired streams, and see that those of outlived ones go; say how many."""
        removed = examined = 0
        async for due in self._agenda.due(await self._chain.now()):
            removed += await self._examine(due)
            examined += 1
            # Those that live longer than was thought cost a look, too: the next sweep goes on.
            if removed >= limit or examined >= 2 * limit:
                break
        return removed

    async def _examine(self, due: Due) -> bool:
        """Look at a stream that may have expired; True if it was removed."""
        try:
            stored = await self._chain.stored(due.key)
        except UnsupportedFormatError:
            return False  # a later release's: it sweeps that itself
        now = await self._chain.now()
        if stored is None or stored.is_fence:
            if stored is None and not due.seen_before:
                await self._agenda.arm(due.key, _GRACE_MS, again=True)
            await self._agenda.drop(due)
            return False
        left_ms = (stored.deadline_ns - now) // MILLISECOND
        if left_ms > 0 and not stored.void:
            await self._agenda.arm(due.key, left_ms)
            await self._agenda.drop(due)
            return False
        try:
            # The fence stands from the moment of expiry on. If it is over too, the shortest one that there is does.
            fence = await self._fence(due.key, stored, "expired", max(1, (stored.gone_ns - now) // MILLISECOND))
        except OvertakenError:
            return False  # a new run, or another sweep: its entry is looked at again
        await self._disarm(due.key, stored, before=fence.sequence)
        await self._agenda.drop(due)
        return True
