"""Attach and detach: how fast subscriptions come and go, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

from benchmarks.figures import Figure
from benchmarks.places import Place
from benchmarks.scale import Scale
from streamhub import Hub, Subscription

AT_ONCE = 50
SETTLE_SECONDS = 5.0


async def measure(place: Place, scale: Scale) -> list[Figure]:
    cycles = scale.attach_cycles
    async with Hub.from_url(place.url) as hub, hub.produce(place.key("live")) as producer:
        await producer.send(b"first")
        await producer.flush()
        await _cycles(hub, producer.key, AT_ONCE)  # what is opened once and kept is there from now on
        before = await _settled({})
        begin = time.perf_counter()
        for _ in range(0, cycles, AT_ONCE):
            await _cycles(hub, producer.key, min(AT_ONCE, cycles))
        seconds = time.perf_counter() - begin
        after = await _settled(before)
    figures = [Figure(name="attach, read one chunk, detach", unit="cycles/s", value=cycles / seconds, better="more")]
    return figures + [
        Figure(name=f"left after {cycles} cycles: {what}", unit="", value=after[what] - before[what], better="less")
        for what in before
    ]


async def _cycles(hub: Hub, key: str, count: int) -> None:
    # Half of them leave an `async for` early, which leaves the detaching to the garbage collector.
    await asyncio.gather(*((_detach if number % 2 else _abandon)(hub, key) for number in range(count)))


async def _detach(hub: Hub, key: str) -> None:
    async with hub.subscribe(key) as subscription:
        await anext(subscription)


async def _abandon(hub: Hub, key: str) -> None:
    async for _ in hub.subscribe(key):
        break


async def _settled(expected: dict[str, int]) -> dict[str, int]:
    """Count what is there, once that is what was expected or some time has passed: detaching ends in the background."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        await asyncio.sleep(0.05)
        counts = _count()
        over = not any(counts[what] > expected.get(what, -1) for what in counts)
        if over or not expected or time.monotonic() > deadline:
            return counts


def _count() -> dict[str, int]:
    gc.collect()
    objects = gc.get_objects()
    return {
        "tasks": len(asyncio.all_tasks()),
        "file descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "futures": sum(isinstance(item, asyncio.Future) for item in objects),
        "subscriptions": sum(isinstance(item, Subscription) for item in objects),
    }
