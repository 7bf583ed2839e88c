"""Cancel from one process of a producer in another that is stuck awaiting its source."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from benchmarks.figures import Figure, latency_figures
from benchmarks.floors import floor_of
from benchmarks.load import Load
from benchmarks.peers import Caller, start
from benchmarks.places import Place
from benchmarks.scale import Scale
from streamhub import Hub, ProducerCancelledError

PAUSE_SECONDS = 0.02


async def measure(place: Place, scale: Scale) -> list[Figure]:
    interrupted: list[int] = []
    stored: list[int] = []
    key = place.key("cancelled")
    here = not place.shared
    async with (
        Hub.from_url(place.url) as hub,
        start("benchmarks.cancel:produce", here=here, url=place.url, key=key, runs=scale.cancels) as producer,
    ):
        for _ in range(scale.cancels):
            run = await producer.hear("stuck")
            await asyncio.sleep(PAUSE_SECONDS)
            begin = time.monotonic_ns()
            result = await hub.cancel(key, run=run, wait=10)
            stored.append(time.monotonic_ns() - begin)
            assert result.state == "cancelled", result
            interrupted.append(await producer.hear("interrupted") - begin)
            await producer.say("next")
    one_way = await floor_of(place).latencies_ns(_one_at_a_time(scale))
    both_ways = None if one_way is None else [2 * ns for ns in one_way]
    where = "one process" if here else "two processes"
    return [
        *latency_figures(f"cancel() to the interrupted producer, {where}", interrupted, one_way),
        *latency_figures(f"cancel() to its return with the stored end, {where}", stored, both_ways),
    ]


def _one_at_a_time(scale: Scale) -> Load:
    """One stream, as many chunks as there are cancels, none close to another."""
    rate = 1 / PAUSE_SECONDS
    return dataclasses.replace(Load.of(scale), streams=1, rate=rate, seconds=scale.cancels / rate, warmup_seconds=0.1)


async def produce(caller: Caller, *, url: str, key: str, runs: int) -> None:
    """Role: open one run after another, and be stuck in it until it is cancelled."""
    async with Hub.from_url(url) as hub:
        for number in range(runs):
            when = 0
            try:
                async with hub.produce(key, run=f"run-{number}"):
                    await caller.say("stuck", f"run-{number}")
                    try:
                        await asyncio.sleep(60)
                    except asyncio.CancelledError:
                        when = time.monotonic_ns()
                        raise
            except ProducerCancelledError:
                await caller.say("interrupted", when)
            await caller.hear("next")
