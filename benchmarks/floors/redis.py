"""The floor of ``redis://``: the bare driver, one pipeline a flush, the same framing; pushes over one connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from statistics import median

from redis.asyncio import Redis

from benchmarks.fanout import Lists
from benchmarks.floors.floor import Floor
from benchmarks.load import CHUNK, Flushes, Load, age_ns, freeze_heap, pace
from benchmarks.peers import Caller, start_process
from streamhub.records import pack_chunks, unpack_chunks

_PAGE = 1024


class RedisFloor(Floor):
    @property
    def _url(self) -> str:
        # Its query is streamhub's.
        return self.place.url.partition("?")[0]

    def _name(self, what: str) -> str:
        return f"floor:{what}:{time.monotonic_ns()}"

    async def write_seconds(self, flushes: Flushes) -> float:
        async with Redis.from_url(self._url) as client:
            names = [f"{self._name('write')}:{number}" for number in range(max(map(len, flushes)))]
            await client.ping()
            begin = time.perf_counter()
            await _write(client, names, flushes)
            seconds = time.perf_counter() - begin
            await client.unlink(*names)
        return seconds

    async def replay_seconds(self, flushes: Flushes, *, readers: int, times: int) -> float:
        total = sum(map(sum, flushes))
        taken: list[float] = []
        async with Redis.from_url(self._url) as client:
            name = self._name("replay")
            await _write(client, [name], flushes)
            for _ in range(times):
                begin = time.perf_counter()
                for _ in range(readers):
                    assert len(await _read(client, name)) == total
                taken.append(time.perf_counter() - begin)
            await client.unlink(name)
        return median(taken)

    async def latencies_ns(self, load: Load) -> Sequence[int]:
        return await self._pushed("benchmarks.floors.redis:receive", load)

    async def crowd_latencies_ns(self, load: Load, subscribers: int) -> Sequence[int]:
        return await self._pushed("benchmarks.floors.redis:receive_for_many", load, subscribers=subscribers)

    async def _pushed(self, role: str, load: Load, **more: object) -> Sequence[int]:
        facts = {
            "url": self._url,
            "name": self._name("latency"),
            "streams": load.streams,
            "rate": load.rate,
            "seconds": load.seconds,
            "warmup_seconds": load.warmup_seconds,
        }
        async with (
            start_process(role, **facts, **more) as receiver,
            start_process("benchmarks.floors.redis:publish", **facts) as publisher,
        ):
            await receiver.hear("ready")
            await publisher.say("go", None)
            return await receiver.hear("latencies")

    async def by_hand(self, chunks: int) -> float:
        async with Redis.from_url(self._url) as client:
            name = self._name("by-hand")
            seconds = await _followed(client, name, chunks)
            await client.unlink(name)
        return chunks / seconds

    async def baselines(self, chunks: int) -> dict[str, float]:
        async with Redis.from_url(self._url) as client:
            name = self._name("baseline")
            begin = time.perf_counter()
            for _ in range(chunks):
                await client.xadd(name, {"c": CHUNK})
            seconds = time.perf_counter() - begin
            await client.unlink(name)
        return {
            "one awaited XADD a chunk": chunks / seconds,
            "the same, read by XREAD BLOCK meanwhile": await self.by_hand(chunks),
        }


async def _write(client: Redis, names: Sequence[str], flushes: Flushes) -> None:
    for counts in flushes:
        async with client.pipeline(transaction=False) as pipeline:
            for name, count in zip(names, counts, strict=False):
                pipeline.xadd(name, {"c": pack_chunks([CHUNK] * count)})
            await pipeline.execute()


async def _read(client: Redis, name: str) -> list[bytes]:
    chunks: list[bytes] = []
    start = "-"
    while page := await client.xrange(name, start, "+", count=_PAGE):
        for _, fields in page:
            chunks += unpack_chunks(fields[b"c"])
        start = f"({page[-1][0].decode()}"
    return chunks


async def _followed(client: Redis, name: str, chunks: int) -> float:
    async def follow() -> None:
        count, last = 0, "0"
        while count < chunks:
            for _, entries in await client.xread({name: last}, block=1000) or ():
                count, last = count + len(entries), entries[-1][0]

    begin = time.perf_counter()
    following = asyncio.create_task(follow())
    for _ in range(chunks):
        await client.xadd(name, {"c": CHUNK})
    await following
    return time.perf_counter() - begin


async def publish(caller: Caller, *, url: str, name: str, **load: float) -> None:
    """Role: store and push each chunk, in one pipeline of its own."""
    plan = Load(**load)  # pyright: ignore[reportArgumentType]
    # As many tasks as streams share this connection, as those of a hub do.
    async with Redis.from_url(url, single_connection_client=True) as client:
        waiting: list[tuple[int, bytes]] = []
        arrived = asyncio.Event()

        async def send(stream: int, chunk: bytes) -> None:
            waiting.append((stream, chunk))
            arrived.set()

        async def flush() -> None:
            while True:
                await arrived.wait()
                arrived.clear()
                taken = waiting[:]
                waiting.clear()
                async with client.pipeline(transaction=False) as pipeline:
                    for stream, chunk in taken:
                        pipeline.xadd(f"{name}:{stream}", {"c": chunk})
                        pipeline.publish(f"{name}:{stream}", chunk)
                    await pipeline.execute()

        flushing = asyncio.create_task(flush())
        await caller.hear("go")
        freeze_heap()
        await pace(plan, send)
        await asyncio.sleep(0.5)
        flushing.cancel()
        await client.unlink(*(f"{name}:{stream}" for stream in range(plan.streams)))


async def receive(caller: Caller, *, url: str, name: str, **load: float) -> None:
    """Role: take what is pushed."""
    plan = Load(**load)  # pyright: ignore[reportArgumentType]
    ages: list[int | None] = []
    await _receive(caller, url, name, plan, lambda _, chunk: ages.append(age_ns(chunk)))
    await caller.say("latencies", [age for age in ages if age is not None])


async def receive_for_many(caller: Caller, *, url: str, name: str, subscribers: int, **load: float) -> None:
    """Role: take what is pushed, and hand it to tasks that wait, through lists and futures."""
    plan = Load(**load)  # pyright: ignore[reportArgumentType]
    ages: list[int | None] = []
    logs = Lists(plan.streams)

    async def follow(stream: int) -> None:
        async for chunk in logs.read(stream, lambda: None):
            ages.append(age_ns(chunk))  # noqa: PERF401 - one at a time is what is measured

    async with asyncio.TaskGroup() as group, logs.opened():
        for number in range(subscribers):
            group.create_task(follow(number % plan.streams))
        await _receive(caller, url, name, plan, logs.put)
        await asyncio.sleep(0.1)
    await caller.say("latencies", [age for age in ages if age is not None])


async def _receive(caller: Caller, url: str, name: str, plan: Load, take: Callable[[int, bytes], None]) -> None:
    async with Redis.from_url(url) as client, client.pubsub() as pubsub:
        names = {f"{name}:{stream}".encode(): stream for stream in range(plan.streams)}
        await pubsub.subscribe(*names)
        left = plan.streams * plan.chunks
        while left:
            message = await pubsub.get_message(timeout=5)
            if message is not None and message["type"] == "subscribe" and message["data"] == plan.streams:
                freeze_heap()
                await caller.say("ready", None)
            elif message is not None and message["type"] == "message":
                left -= 1
                take(names[message["channel"]], message["data"])
