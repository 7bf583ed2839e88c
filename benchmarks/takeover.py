"""Takeover: a producer is killed (SIGKILL) at a random moment; another process, which waits, continues its run."""

from __future__ import annotations

import asyncio
import random
import time

from benchmarks.figures import Figure
from benchmarks.peers import Caller, start_process
from benchmarks.places import Place
from benchmarks.scale import Scale
from streamhub import Hub, Subscription

PAUSE_SECONDS = 0.02


async def measure(place: Place, scale: Scale) -> list[Figure]:
    if not place.shared:
        return []
    figures: list[Figure] = []
    async with Hub.from_url(place.url) as hub:
        ttl = max(scale.lease_seconds, hub.leases.min_ttl_seconds)
    url = place.with_options(lease_seconds=ttl)
    async with Hub.from_url(url) as hub:
        for number in range(scale.takeovers):
            figures += await _take_over(hub, url, place.key(number), ttl)
    return figures


async def _take_over(hub: Hub, url: str, key: str, ttl: float) -> list[Figure]:
    async with start_process("benchmarks.takeover:produce", url=url, key=key) as victim:
        await victim.hear("open")
        async with hub.subscribe(key, wait=5) as subscription:
            seen = asyncio.create_task(_new_generation(subscription))
            successor = asyncio.create_task(_succeed(hub, key, ttl))
            await asyncio.sleep(ttl * random.uniform(0.5, 1.5))
            holder = (await hub.leases.holders([key]))[0]
            assert holder is not None, "the victim holds no lease"
            victim.kill()
            killed = time.monotonic()
            opened, received = await successor, await seen
    return [
        Figure(
            name=f"killed producer to its successor's open run, lease {ttl:g} s",
            unit="s",
            value=opened - killed,
            floor=holder.expires_in,
            better="less",
        ),
        Figure(
            name="killed producer to the successor's first chunk at a subscriber",
            unit="s",
            value=received - killed,
            floor=holder.expires_in,
            better="less",
        ),
    ]


async def _succeed(hub: Hub, key: str, ttl: float) -> float:
    async with hub.produce(key, unfinished="resume", wait=10 * ttl) as producer:
        opened = time.monotonic()
        await producer.send(b"continued")
    return opened


async def _new_generation(subscription: Subscription) -> float:
    first = None
    received = 0.0
    async for chunk in subscription:
        if first is None:
            first = chunk.offset.generation
        elif chunk.offset.generation != first and not received:
            received = time.monotonic()
    assert received, "the successor's chunk never came"
    return received


async def produce(caller: Caller, *, url: str, key: str) -> None:
    """Role: produce until killed."""
    async with Hub.from_url(url) as hub, hub.produce(key) as producer:
        await producer.send(b"first")
        await producer.flush()
        await caller.say("open")
        while True:
            await producer.send(b"more")
            await asyncio.sleep(PAUSE_SECONDS)
