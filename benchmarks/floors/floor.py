"""What a floor can measure. Here: nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.load import CHUNK, Flushes, Load
from benchmarks.places import Place

YIELD_EVERY = 256
"""As a producer does: one that never waits lets the event loop run after this many chunks."""


class Log:
    """A list, with the least that ``await send(chunk)`` can do."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ended = False
        self.grown = asyncio.Event()

    async def send(self, chunk: bytes) -> int:
        self.chunks.append(chunk)
        self.grown.set()
        if len(self.chunks) % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        return len(self.chunks)


async def send_all(log: Log, count: int) -> None:
    """Send chunks one by one."""
    for _ in range(count):
        await log.send(CHUNK)


async def send_seconds(flushes: Flushes) -> float:
    """Send as many chunks, on as many streams, to lists."""
    streams = max(map(len, flushes))
    each = sum(map(sum, flushes)) // streams
    begin = time.perf_counter()
    await asyncio.gather(*(send_all(Log(), each) for _ in range(streams)))
    return time.perf_counter() - begin


class Floor:
    """Floors of one backend; None where there is no measurement."""

    def __init__(self, place: Place) -> None:
        self.place = place

    async def write_seconds(self, flushes: Flushes) -> float | None:
        """Store the same chunks in the same flushes."""
        return None

    async def awaited_write_seconds(self, flushes: Flushes) -> float | None:
        """As ``write_seconds``, where each chunk is handed over by an awaited call, as any ``await send(chunk)`` is."""
        seconds = await self.write_seconds(flushes)
        return None if seconds is None else seconds + await send_seconds(flushes)

    async def deliver_seconds(self, flushes: Flushes) -> float | None:
        """Store the same chunks in the same flushes, and hand each to one reader in the same process."""
        return await self.write_seconds(flushes)

    async def replay_seconds(self, flushes: Flushes, *, readers: int, times: int) -> float | None:
        """Read all chunks back, once for each reader; they were stored in these flushes. The median of some times."""
        return None

    async def latencies_ns(self, load: Load) -> Sequence[int] | None:
        """Carry a load from one process to another; return each chunk's latency."""
        return None

    async def latencies_by_hand_ns(self, load: Load) -> Sequence[int] | None:
        """The same as it is written by hand most often."""
        return None

    async def crowd_latencies_ns(self, load: Load, subscribers: int) -> Sequence[int] | None:
        """Carry a load from one process to many readers in another; return each delivery's latency."""
        return None

    async def by_hand(self, chunks: int) -> float | None:
        """Do what is written by hand most often, with a reader beside it; return chunks a second."""
        return None

    async def baselines(self, chunks: int) -> dict[str, float]:
        """Do what is often written by hand; return chunks a second by description."""
        return {}
