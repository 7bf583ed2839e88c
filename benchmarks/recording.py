"""A hub that notes how its chunks were grouped into flushes, so that a floor can do the same."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from streamhub import Append, Hub, open_backend


class RecordingStore:
    """The store, and the number of chunks of every append of every call."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.flushes: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, batch: Sequence[Append]) -> Any:
        self.flushes.append([len(append.chunks) for append in batch if append.chunks])
        return await self._store.append(batch)


@asynccontextmanager
async def recorded_hub(url: str) -> AsyncGenerator[tuple[Hub, list[list[int]]]]:
    """Open a hub with default settings, and the list its flushes are noted in."""
    async with open_backend(url) as backend:
        store: Any = RecordingStore(backend.store)
        async with Hub(store=store, leases=backend.leases, cancels=backend.cancels) as hub:
            yield hub, store.flushes
