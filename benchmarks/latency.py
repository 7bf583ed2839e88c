"""Latency from ``send`` in one process to the subscriber's loop in another, under a steady load on many streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from benchmarks.figures import Figure, latency_figures
from benchmarks.floors import floor_of
from benchmarks.load import Load, age_ns, freeze_heap, pace
from benchmarks.peers import Caller, start
from benchmarks.places import Place
from benchmarks.scale import Scale
from streamhub import Hub


async def measure(place: Place, scale: Scale) -> list[Figure]:
    load = Load.of(scale)
    keys = [place.key(number) for number in range(load.streams)]
    here = not place.shared
    facts = {"url": place.url, "keys": keys}
    async with (
        start("benchmarks.latency:subscribe", here=here, **facts) as subscriber,
        start(
            "benchmarks.latency:publish",
            here=here,
            rate=load.rate,
            seconds=load.seconds,
            warmup_seconds=load.warmup_seconds,
            **facts,
        ) as publisher,
    ):
        await publisher.hear("open")
        await subscriber.hear("attached")
        await publisher.say("go")
        took = await publisher.hear("sent")
        latencies: list[int] = await subscriber.hear("latencies")
    expected = load.streams * (load.chunks - load.warmup_chunks)
    assert len(latencies) == expected, f"{len(latencies)} of {expected} chunks were delivered"
    processes = "one process" if here else "two processes"
    what = f"publish to receive, {load.streams} streams x {load.rate:g}/s, {processes}"
    kept = Figure(
        name="share of the offered rate that was sent",
        unit="%",
        value=100 * min(1.0, (load.seconds + load.warmup_seconds) / took),
        better="more",
    )
    floor = floor_of(place)
    figures = [*latency_figures(what, latencies, await floor.latencies_ns(load)), kept]
    by_hand = await floor.latencies_by_hand_ns(load)
    if by_hand is not None:
        figures += latency_figures(f"{what}, beside what is written by hand", latencies, by_hand)
    return figures


async def publish(
    caller: Caller, *, url: str, keys: Sequence[str], rate: float, seconds: float, warmup_seconds: float
) -> None:
    """Role: open all streams, then send the load."""
    load = Load(streams=len(keys), rate=rate, seconds=seconds, warmup_seconds=warmup_seconds)
    async with Hub.from_url(url) as hub, AsyncExitStack() as stack:
        producers = [await stack.enter_async_context(hub.produce(key)) for key in keys]
        freeze_heap()
        await caller.say("open")
        await caller.hear("go")
        took = await pace(load, lambda stream, chunk: producers[stream].send(chunk))
        await caller.say("sent", took)


async def subscribe(caller: Caller, *, url: str, keys: Sequence[str]) -> None:
    """Role: follow all streams to their end, and say how old each chunk was."""
    ages: list[int | None] = []
    attached = asyncio.Semaphore(0)

    async def follow(hub: Hub, key: str) -> None:
        async with hub.subscribe(key, wait=30) as subscription:
            attached.release()
            async for chunk in subscription:
                ages.append(age_ns(chunk.data))  # noqa: PERF401 - one at a time is what is measured

    async with Hub.from_url(url) as hub, asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(follow(hub, key))
        for _ in keys:
            await attached.acquire()
        freeze_heap()
        await caller.say("attached")
    await caller.say("latencies", [age for age in ages if age is not None])
