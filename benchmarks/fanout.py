"""Fan-out: many subscribers on many streams in one process. The floor is the same number of tasks and plain lists."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from benchmarks.figures import Figure, latency_figures
from benchmarks.load import CHUNK, Load, age_ns, pace
from benchmarks.peers import Caller, start_process
from benchmarks.places import Place
from benchmarks.scale import Scale
from streamhub import Hub

SETTLE_SECONDS = 0.2
STREAMHUB, BARE = "benchmarks.fanout:streamhub_side", "benchmarks.fanout:bare_side"


async def measure(place: Place, scale: Scale) -> list[Figure]:
    facts = {
        "url": place.url,
        "prefix": place.prefix,
        "streams": scale.fanout_streams,
        "subscribers": scale.fanout_subscribers,
        "chunks": scale.fanout_chunks,
        "rate": scale.fanout_rate,
        "seconds": scale.fanout_seconds,
    }
    value, floor = await _in_process(STREAMHUB, facts), await _in_process(BARE, facts)
    shape = f"{scale.fanout_subscribers} subscribers on {scale.fanout_streams} streams"
    paced = f"{scale.fanout_rate:g} chunk/s a stream: publish to receive"
    return [
        Figure(
            name=f"{shape}: attach",
            unit="subscribers/s",
            value=scale.fanout_subscribers / value["attach_seconds"],
            better="more",
        ),
        Figure(
            name=f"{shape}: deliver {scale.fanout_chunks} chunks a stream to all",
            unit="deliveries/s",
            value=value["deliveries"] / value["burst_seconds"],
            floor=floor["deliveries"] / floor["burst_seconds"],
            better="more",
        ),
        *latency_figures(paced, value["latencies"]["default"], floor["latencies"]["default"]),
        *latency_figures(
            f"{paced}, without the garbage collector",
            value["latencies"]["uncollected"],
            floor["latencies"]["uncollected"],
        ),
        Figure(
            name="memory of a waiting subscriber (with its task, and its share of a stream)",
            unit="KiB",
            value=value["bytes"] / 1024,
            floor=floor["bytes"] / 1024,
            better="less",
        ),
    ]


async def _in_process(role: str, facts: dict[str, Any]) -> dict[str, Any]:
    # A process of its own, so that its memory is its own.
    async with start_process(role, **facts) as peer:
        return await peer.hear("measured")


class _Side(Protocol):
    """Either side: opens streams, attaches a reader, sends."""

    def opened(self) -> Any: ...
    async def send(self, stream: int, chunk: bytes) -> object: ...
    def read(self, stream: int, attached: Callable[[], None]) -> AsyncIterator[bytes]: ...


async def streamhub_side(
    caller: Caller, *, url: str, prefix: str, streams: int, subscribers: int, chunks: int, rate: float, seconds: float
) -> None:
    """Role: fan out through a hub."""
    async with Hub.from_url(url) as hub:
        side = _Streams(hub, [f"{prefix}{number}" for number in range(streams)])
        await caller.say("measured", await _fan_out(side, streams, subscribers, chunks, rate, seconds))


async def bare_side(
    caller: Caller, *, streams: int, subscribers: int, chunks: int, rate: float, seconds: float, **_: Any
) -> None:
    """Role: fan out through lists and futures."""
    await caller.say("measured", await _fan_out(Lists(streams), streams, subscribers, chunks, rate, seconds))


async def _fan_out(
    side: _Side, streams: int, subscribers: int, chunks: int, rate: float, seconds: float
) -> dict[str, Any]:
    received: list[int | None] = []
    latencies: dict[str, list[int | None]] = {}
    waiting = _Countdown(subscribers)
    delivered = _Countdown(subscribers * chunks)

    async def follow(stream: int) -> None:
        count = 0
        async for chunk in side.read(stream, waiting.tick):
            count += 1
            if count <= chunks:
                delivered.tick()
            else:
                received.append(age_ns(chunk))

    async with asyncio.TaskGroup() as group, side.opened():
        before, begin = _resident_bytes(), time.perf_counter()
        for number in range(subscribers):
            group.create_task(follow(number % streams))
        await waiting.zero
        attach_seconds = time.perf_counter() - begin
        each_bytes = (_resident_bytes() - before) / subscribers
        begin = time.perf_counter()
        await asyncio.gather(*(_burst(side, stream, chunks) for stream in range(streams)))
        await delivered.zero
        burst_seconds = time.perf_counter() - begin
        load = Load(streams=streams, rate=rate, seconds=seconds, warmup_seconds=0)
        await pace(load, side.send)
        await asyncio.sleep(SETTLE_SECONDS)
        latencies["default"] = received[:]
        received.clear()
        gc.disable()
        await pace(load, side.send)
        await asyncio.sleep(SETTLE_SECONDS)
        latencies["uncollected"] = received[:]
    return {
        "attach_seconds": attach_seconds,
        "burst_seconds": burst_seconds,
        "deliveries": subscribers * chunks,
        "latencies": latencies,
        "bytes": each_bytes,
    }


async def _burst(side: _Side, stream: int, chunks: int) -> None:
    for _ in range(chunks):
        await side.send(stream, CHUNK)


def _resident_bytes() -> int:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Countdown:
    def __init__(self, count: int) -> None:
        self._left = count
        self.zero: Awaitable[None] = asyncio.get_running_loop().create_future()

    def tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.zero.set_result(None)  # type: ignore[attr-defined]


class _Streams:
    def __init__(self, hub: Hub, keys: Sequence[str]) -> None:
        self._hub = hub
        self._keys = keys
        self._producers: list[Any] = []

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            self._producers = [await stack.enter_async_context(self._hub.produce(key)) for key in self._keys]
            yield

    async def send(self, stream: int, chunk: bytes) -> object:
        return await self._producers[stream].send(chunk)

    async def read(self, stream: int, attached: Callable[[], None]) -> AsyncIterator[bytes]:
        async with self._hub.subscribe(self._keys[stream]) as subscription:
            attached()
            async for chunk in subscription:
                yield chunk.data


class Lists:
    """Streams that are lists, whose readers wait for futures."""

    def __init__(self, streams: int) -> None:
        self._logs: list[list[bytes]] = [[] for _ in range(streams)]
        self._waiters: list[list[asyncio.Future[None]]] = [[] for _ in range(streams)]
        self._ended = False

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        yield
        self._ended = True
        for stream in range(len(self._logs)):
            self._wake(stream)

    async def send(self, stream: int, chunk: bytes) -> None:
        self.put(stream, chunk)

    def put(self, stream: int, chunk: bytes) -> None:
        self._logs[stream].append(chunk)
        self._wake(stream)

    def _wake(self, stream: int) -> None:
        waiters, self._waiters[stream] = self._waiters[stream], []
        for waiter in waiters:
            waiter.set_result(None)

    async def read(self, stream: int, attached: Callable[[], None]) -> AsyncIterator[bytes]:
        attached()
        log, index = self._logs[stream], 0
        while index < len(log) or not self._ended:
            if index == len(log):
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiters[stream].append(waiter)
                await waiter
                continue
            index += 1
            yield log[index - 1]
