"""Listing keys by how their runs stand: being produced, orphaned or ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, TypeAlias

from streamhub.protocols import LeaseManager, StreamStore

KeyState: TypeAlias = Literal["live", "orphaned", "ended"]
"""How a key's run stands: it is being produced, has neither end nor producer, or has its end."""

KEYS_PER_CALL = 256


async def list_keys(
    store: StreamStore, leases: LeaseManager, prefix: str, state: KeyState | None
) -> AsyncIterator[str]:
    """Yield the keys that begin with ``prefix`` and whose runs stand as ``state`` says; None for every stream.

    Fences are left out. Holds one batch of keys at a time.
    """
    batch: list[str] = []
    async for key in store.keys(prefix):
        batch.append(key)
        if len(batch) == KEYS_PER_CALL:
            for found in await _of_state(store, leases, batch, state):
                yield found
            batch = []
    for found in await _of_state(store, leases, batch, state):
        yield found


async def _of_state(store: StreamStore, leases: LeaseManager, keys: list[str], state: KeyState | None) -> list[str]:
    if not keys:
        return []
    infos = await store.describe(keys)
    if state is None:
        return [info.key for info in infos if info is not None and info.state in ("open", "ended")]
    if state == "ended":
        return [info.key for info in infos if info is not None and info.state == "ended"]
    unfinished = [info for info in infos if info is not None and info.state == "open"]
    holders = await leases.holders([info.key for info in unfinished])
    held = [holder is not None or not info.attended for info, holder in zip(unfinished, holders, strict=True)]
    if state == "live":
        return [info.key for info, alive in zip(unfinished, held, strict=True) if alive]
    # One that ended and was released between the two questions is no orphan: ask again.
    orphans = [info for info, alive in zip(unfinished, held, strict=True) if not alive]
    again = await store.describe([info.key for info in orphans])
    return [info.key for info, now in zip(orphans, again, strict=True) if now is not None and now.seen == info.seen]
