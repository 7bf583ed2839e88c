"""Throughput of several processes at once, beside one with as many producers; also with each chunk awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.figures import Figure
from benchmarks.load import CHUNK
from benchmarks.peers import Caller, start_process
from benchmarks.places import Place
from benchmarks.scale import Scale
from streamhub import Hub, Producer

PROCESSES = 4


async def measure(place: Place, scale: Scale) -> list[Figure]:
    if not place.shared:
        return []
    each = scale.producers // PROCESSES
    figures: list[Figure] = []
    for loop, chunks in (("open", scale.chunks), ("closed", scale.baseline_chunks)):
        one = await _rate(place, loop, processes=1, producers=each * PROCESSES, chunks=chunks)
        four = await _rate(place, loop, processes=PROCESSES, producers=each, chunks=chunks // PROCESSES)
        figures += [
            Figure(
                name=f"1 process with {each * PROCESSES} producers, {loop} loop",
                unit="chunks/s",
                value=one,
                better="more",
            ),
            Figure(
                name=f"{PROCESSES} processes with {each} producers each, {loop} loop",
                unit="chunks/s",
                value=four,
                floor=one,
                better="more",
            ),
        ]
    return figures


async def _rate(place: Place, loop: str, *, processes: int, producers: int, chunks: int) -> float:
    async with AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(
                start_process(
                    "benchmarks.processes:produce",
                    url=place.url,
                    keys=[place.key(f"{loop}-{processes}-{process}-{number}") for number in range(producers)],
                    loop=loop,
                    chunks=chunks // producers,
                )
            )
            for process in range(processes)
        ]
        for peer in peers:
            await peer.hear("open")
        begin = time.perf_counter()
        for peer in peers:
            await peer.say("go")
        for peer in peers:
            await peer.hear("stored")
        return processes * producers * (chunks // producers) / (time.perf_counter() - begin)


async def produce(caller: Caller, *, url: str, keys: Sequence[str], loop: str, chunks: int) -> None:
    """Role: open all streams, then send as fast as the loop allows, until everything is stored."""
    send: Callable[[Producer, int], Coroutine[Any, Any, None]] = _send_open if loop == "open" else _send_closed
    async with Hub.from_url(url) as hub, AsyncExitStack() as stack:
        producers = [await stack.enter_async_context(hub.produce(key)) for key in keys]
        await caller.say("open")
        await caller.hear("go")
        await asyncio.gather(*(send(producer, chunks) for producer in producers))
        await caller.say("stored")


async def _send_open(producer: Producer, chunks: int) -> None:
    for _ in range(chunks):
        await producer.send(CHUNK)
    await producer.flush()


async def _send_closed(producer: Producer, chunks: int) -> None:
    for _ in range(chunks):
        await producer.send(CHUNK)
        await producer.flush()
