"""Replay of an ended stream over an open hub: from ``subscribe`` to the end of the iteration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.figures import Figure
from benchmarks.floors import floor_of
from benchmarks.load import CHUNK, Flushes
from benchmarks.places import Place
from benchmarks.recording import recorded_hub
from benchmarks.scale import Scale
from streamhub import Hub

Read = Callable[[Hub, str], Awaitable[int]]


async def measure(place: Place, scale: Scale) -> list[Figure]:
    packed, each = await _stored(place, scale, each_durable=False), await _stored(place, scale, each_durable=True)
    readers, count = scale.replay_readers, scale.replay_chunks
    return [
        await _measured(f"{count} chunks, packed", packed, scale, _read),
        await _measured(f"{count} chunks, packed, by batches()", packed, scale, _read_batches),
        await _measured(f"{count} chunks, packed, {readers} late subscribers at once", packed, scale, _read, readers),
        await _measured(f"{count} chunks, appended one by one", each, scale, _read),
    ]


@dataclass(frozen=True, slots=True)
class _Stored:
    place: Place
    key: str
    flushes: Flushes


async def _stored(place: Place, scale: Scale, *, each_durable: bool) -> _Stored:
    key = place.key(f"each-{each_durable}")
    async with recorded_hub(place.url) as (hub, flushes):
        await _fill(hub, key, scale.replay_chunks, each_durable=each_durable)
    return _Stored(place, key, flushes)


async def _measured(name: str, stored: _Stored, scale: Scale, read: Read, readers: int = 1) -> Figure:
    # All of streamhub's times, then all of the floor's: what fills the floor's file would be in the way of a read.
    times = scale.replay_times
    taken: list[float] = []
    async with Hub.from_url(stored.place.url) as hub:
        for _ in range(times):
            begin = time.perf_counter()
            counts = await asyncio.gather(*(read(hub, stored.key) for _ in range(readers)))
            taken.append(time.perf_counter() - begin)
            assert set(counts) == {scale.replay_chunks}, counts
    floor = await floor_of(stored.place).replay_seconds(stored.flushes, readers=readers, times=times)
    return Figure(
        name=name,
        unit="ms",
        value=1000 * median(taken),
        floor=None if floor is None else 1000 * floor,
        better="less",
    )


async def _fill(hub: Hub, key: str, count: int, *, each_durable: bool) -> None:
    async with hub.produce(key) as producer:
        for _ in range(count):
            await producer.send(CHUNK)
            if each_durable:
                await producer.flush()


async def _read(hub: Hub, key: str) -> int:
    count = 0
    async for _ in hub.subscribe(key):
        count += 1
    return count


async def _read_batches(hub: Hub, key: str) -> int:
    count = 0
    async with hub.subscribe(key) as subscription:
        async for batch in subscription.batches():
            count += len(batch)
    return count
