"""Many subscribers in one process, on streams that another process produces: latency, and the sockets it takes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from benchmarks.figures import Figure, latency_figures
from benchmarks.floors import floor_of
from benchmarks.load import Load, age_ns, freeze_heap
from benchmarks.peers import Caller, start_process
from benchmarks.places import Place
from benchmarks.scale import Crowd, Scale
from streamhub import Hub


async def measure(place: Place, scale: Scale) -> list[Figure]:
    if not place.shared:
        return []
    figures: list[Figure] = []
    for crowd in scale.crowds:
        figures += await _measured(place, scale, crowd)
    return figures


async def _measured(place: Place, scale: Scale, crowd: Crowd) -> list[Figure]:
    load = Load(
        streams=crowd.streams, rate=crowd.rate, seconds=scale.crowd_seconds, warmup_seconds=scale.crowd_warmup_seconds
    )
    keys = [place.key(f"{crowd.streams}-{number}") for number in range(crowd.streams)]
    async with (
        start_process("benchmarks.crowd:follow", url=place.url, keys=keys, subscribers=crowd.subscribers) as reader,
        start_process(
            "benchmarks.latency:publish",
            url=place.url,
            keys=keys,
            rate=load.rate,
            seconds=load.seconds,
            warmup_seconds=load.warmup_seconds,
        ) as publisher,
    ):
        await publisher.hear("open")
        await reader.say("streams are open")
        sockets = await reader.hear("attached")
        await publisher.say("go")
        await publisher.hear("sent")
        latencies: list[int] = await reader.hear("latencies")
    expected = crowd.subscribers * (load.chunks - load.warmup_chunks)
    assert len(latencies) == expected, f"{len(latencies)} of {expected} chunks were delivered"
    what = f"{crowd.subscribers} subscribers on {crowd.streams} streams, {crowd.rate:g}/s each, two processes"
    floor = await floor_of(place).crowd_latencies_ns(load, crowd.subscribers)
    return [
        *latency_figures(what, latencies, floor),
        Figure(name=f"{what}: sockets of the subscribers' process", unit="", value=sockets, better="less"),
    ]


async def follow(caller: Caller, *, url: str, keys: Sequence[str], subscribers: int) -> None:
    """Role: subscribe many times, each to the end, and say how old each chunk was."""
    ages: list[int | None] = []
    attached = asyncio.Semaphore(0)
    await caller.hear("streams are open")
    before = _sockets()

    async def one(hub: Hub, key: str) -> None:
        async with hub.subscribe(key) as subscription:
            attached.release()
            async for chunk in subscription:
                ages.append(age_ns(chunk.data))  # noqa: PERF401 - one at a time is what is measured

    async with Hub.from_url(url) as hub, asyncio.TaskGroup() as group:
        for number in range(subscribers):
            group.create_task(one(hub, keys[number % len(keys)]))
        for _ in range(subscribers):
            await attached.acquire()
        freeze_heap()
        await caller.say("attached", _sockets() - before)
    await caller.say("latencies", [age for age in ages if age is not None])


def _sockets() -> int:
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.islink(link) and os.readlink(link).startswith("socket:") for link in links)
