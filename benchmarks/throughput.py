"""Throughput, open loop: ``send`` without waiting for durability, counted once the run has ended and is stored."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from benchmarks.figures import Figure
from benchmarks.floors import Floor, floor_of
from benchmarks.load import CHUNK
from benchmarks.places import Place
from benchmarks.recording import recorded_hub
from benchmarks.scale import Scale
from streamhub import Hub


async def measure(place: Place, scale: Scale) -> list[Figure]:
    floor = floor_of(place)
    one = await _written(place, floor, producers=1, chunks=scale.chunks)
    by_hand = await floor.by_hand(scale.baseline_chunks)
    if by_hand is not None:
        one.append(dataclasses.replace(one[0], name="1 producer, beside what is written by hand", floor=by_hand))
    return [
        *one,
        *await _written(place, floor, producers=scale.producers, chunks=scale.chunks),
        await _delivered(place, floor, chunks=scale.chunks),
    ]


async def _written(place: Place, floor: Floor, *, producers: int, chunks: int) -> list[Figure]:
    each = chunks // producers
    keys = [place.key(f"{producers}-{number}") for number in range(producers)]
    async with recorded_hub(place.url) as (hub, flushes):
        begin = time.perf_counter()
        await asyncio.gather(*(_produce(hub, key, each) for key in keys))
        seconds = time.perf_counter() - begin
    name = "1 producer" if producers == 1 else f"{producers} producers"
    chunks = each * producers
    bare, awaited = await floor.write_seconds(flushes), await floor.awaited_write_seconds(flushes)
    figures = [_figure(name, chunks, seconds, bare)]
    if awaited is not None:
        figures.append(_figure(f"{name}, floor with one awaited call a chunk", chunks, seconds, awaited))
    rows = sum(map(len, flushes))
    figures.append(
        Figure(name=f"{name}: chunks in one row of a flush", unit="chunks", value=chunks / rows, better="more")
    )
    return figures


async def _delivered(place: Place, floor: Floor, *, chunks: int) -> Figure:
    key = place.key("delivered")
    async with recorded_hub(place.url) as (hub, flushes):
        begin = time.perf_counter()
        async with hub.produce(key) as producer:
            reader = asyncio.create_task(_count(hub, key))
            for _ in range(chunks):
                await producer.send(CHUNK)
        count = await reader
        seconds = time.perf_counter() - begin
    assert count == chunks, f"{count} of {chunks} chunks were delivered"
    return _figure("1 producer to 1 subscriber, one process", chunks, seconds, await floor.deliver_seconds(flushes))


async def _produce(hub: Hub, key: str, chunks: int) -> None:
    async with hub.produce(key) as producer:
        for _ in range(chunks):
            await producer.send(CHUNK)


async def _count(hub: Hub, key: str) -> int:
    count = 0
    async for _ in hub.subscribe(key):
        count += 1
    return count


def _figure(name: str, chunks: int, seconds: float, floor_seconds: float | None) -> Figure:
    floor = None if floor_seconds is None else chunks / floor_seconds
    return Figure(name=name, unit="chunks/s", value=chunks / seconds, floor=floor, better="more")
