"""The floor of ``memory://``: a list, and an event that says that it has grown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from benchmarks.floors.floor import Floor, Log, send_all, send_seconds
from benchmarks.load import CHUNK, Flushes, Load, age_ns, pace


class MemoryFloor(Floor):
    async def write_seconds(self, flushes: Flushes) -> float:
        return await send_seconds(flushes)

    async def awaited_write_seconds(self, flushes: Flushes) -> None:
        """There is no driver to be called without awaiting."""

    async def deliver_seconds(self, flushes: Flushes) -> float:
        log, total = Log(), sum(map(sum, flushes))
        begin = time.perf_counter()
        reader = asyncio.create_task(_count(log))
        await send_all(log, total)
        _end(log)
        count = await reader
        seconds = time.perf_counter() - begin
        assert count == total, (count, total)
        return seconds

    async def replay_seconds(self, flushes: Flushes, readers: int) -> float:
        log = Log()
        log.chunks = [CHUNK] * sum(map(sum, flushes))
        log.ended = True
        begin = time.perf_counter()
        await asyncio.gather(*(_count(log) for _ in range(readers)))
        return time.perf_counter() - begin

    async def latencies_ns(self, load: Load) -> Sequence[int]:
        logs = [Log() for _ in range(load.streams)]
        ages: list[int | None] = []

        async def follow(log: Log) -> None:
            async for chunk in _read(log):
                ages.append(age_ns(chunk))  # noqa: PERF401 - one at a time is what is measured

        async with asyncio.TaskGroup() as group:
            for log in logs:
                group.create_task(follow(log))
            await pace(load, lambda stream, chunk: logs[stream].send(chunk))
            for log in logs:
                _end(log)
        return [age for age in ages if age is not None]

    async def baselines(self, chunks: int) -> dict[str, float]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1024)

        async def drain() -> None:
            while await queue.get() is not None:
                pass

        begin = time.perf_counter()
        reader = asyncio.create_task(drain())
        for _ in range(chunks):
            await queue.put(CHUNK)
        await queue.put(None)
        await reader
        return {"asyncio.Queue(1024), one put and one get a chunk": chunks / (time.perf_counter() - begin)}


def _end(log: Log) -> None:
    log.ended = True
    log.grown.set()


async def _read(log: Log) -> AsyncIterator[bytes]:
    index = 0
    while True:
        while index < len(log.chunks):
            index += 1
            yield log.chunks[index - 1]
        if log.ended:
            return
        log.grown.clear()
        await log.grown.wait()


async def _count(log: Log) -> int:
    count = 0
    async for _ in _read(log):
        count += 1
    return count
