"""Replay of an ended stream over an open hub: from ``subscribe`` to the end of the iteration."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from benchmarks.figures import Figure
from benchmarks.floors import floor_of
from benchmarks.load import CHUNK
from benchmarks.places import Place
from benchmarks.recording import recorded_hub
from benchmarks.scale import Scale
from streamhub import Hub


async def measure(place: Place, scale: Scale) -> list[Figure]:
    figures: list[Figure] = []
    count, readers = scale.replay_chunks, scale.replay_readers
    floor = floor_of(place)
    for name, each_durable in (("packed", False), ("appended one by one", True)):
        key = place.key(name)
        async with recorded_hub(place.url) as (hub, flushes):
            await _fill(hub, key, count, each_durable=each_durable)
        async with Hub.from_url(place.url) as hub:
            times = [
                (await _read(hub, key, count), await floor.replay_seconds(flushes, 1))
                for _ in range(scale.replay_times)
            ]
            figures.append(_figure(f"{count} chunks, {name}", times))
            if each_durable:
                continue
            batches = [
                (await _read_batches(hub, key, count), await floor.replay_seconds(flushes, 1))
                for _ in range(scale.replay_times)
            ]
            figures.append(_figure(f"{count} chunks, {name}, by batches()", batches))
            begin = time.perf_counter()
            await asyncio.gather(*(_read(hub, key, count) for _ in range(readers)))
            many = (time.perf_counter() - begin, await floor.replay_seconds(flushes, readers))
            figures.append(_figure(f"{count} chunks, {name}, {readers} late subscribers at once", [many]))
    return figures


async def _fill(hub: Hub, key: str, count: int, *, each_durable: bool) -> None:
    async with hub.produce(key) as producer:
        for _ in range(count):
            await producer.send(CHUNK)
            if each_durable:
                await producer.flush()


async def _read(hub: Hub, key: str, expected: int) -> float:
    count = 0
    begin = time.perf_counter()
    async for _ in hub.subscribe(key):
        count += 1
    seconds = time.perf_counter() - begin
    assert count == expected, f"{count} of {expected} chunks were read"
    return seconds


async def _read_batches(hub: Hub, key: str, expected: int) -> float:
    count = 0
    begin = time.perf_counter()
    async with hub.subscribe(key) as subscription:
        async for batch in subscription.batches():
            count += len(batch)
    seconds = time.perf_counter() - begin
    assert count == expected, f"{count} of {expected} chunks were read"
    return seconds


def _figure(name: str, times: list[tuple[float, float | None]]) -> Figure:
    floors = [floor for _, floor in times if floor is not None]
    return Figure(
        name=name,
        unit="ms",
        value=1000 * median(value for value, _ in times),
        floor=1000 * median(floors) if floors else None,
        better="less",
    )
