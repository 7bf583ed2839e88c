"""The floor of ``nats://``: the bare driver, one acknowledged message a flush, pushes by ``republish``.

Beside it stand what is written by hand: a message for each chunk, published with an acknowledgement, and an ordered
consumer for each subscriber.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from statistics import median
from urllib.parse import parse_qsl, urlsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.fanout import Lists
from benchmarks.floors.floor import Floor
from benchmarks.load import CHUNK, Flushes, Load, age_ns, freeze_heap, pace
from benchmarks.peers import Caller, start_process
from streamhub.records import pack_chunks, unpack_chunks

_PAGE = 512


class NatsFloor(Floor):
    @property
    def _url(self) -> str:
        return self.place.url

    def _name(self) -> str:
        return f"floor{time.monotonic_ns()}"

    async def write_seconds(self, flushes: Flushes) -> float:
        async with _stream(self._url, self._name()) as (client, name):
            begin = time.perf_counter()
            await _write(client, name, flushes)
            return time.perf_counter() - begin

    async def replay_seconds(self, flushes: Flushes, *, readers: int, times: int) -> float:
        total = sum(map(sum, flushes))
        taken: list[float] = []
        async with _stream(self._url, self._name()) as (client, name):
            await _write(client, name, flushes)
            for _ in range(times):
                begin = time.perf_counter()
                for _ in range(readers):
                    assert len(await _read(client, name)) == total
                taken.append(time.perf_counter() - begin)
        return median(taken)

    async def latencies_ns(self, load: Load) -> Sequence[int]:
        return await self._pushed("benchmarks.floors.nats:receive", "benchmarks.floors.nats:publish", load)

    async def latencies_by_hand_ns(self, load: Load) -> Sequence[int]:
        roles = "benchmarks.floors.nats:receive_by_consumers", "benchmarks.floors.nats:publish_by_hand"
        return await self._pushed(*roles, load)

    async def crowd_latencies_ns(self, load: Load, subscribers: int) -> Sequence[int]:
        roles = "benchmarks.floors.nats:receive_for_many", "benchmarks.floors.nats:publish"
        return await self._pushed(*roles, load, subscribers=subscribers)

    async def _pushed(self, receiving: str, publishing: str, load: Load, **more: object) -> Sequence[int]:
        async with _stream(self._url, self._name()) as (_, name):
            facts = {
                "url": self._url,
                "name": name,
                "streams": load.streams,
                "rate": load.rate,
                "seconds": load.seconds,
                "warmup_seconds": load.warmup_seconds,
            }
            async with (
                start_process(receiving, **facts, **more) as receiver,
                start_process(publishing, **facts) as publisher,
            ):
                await receiver.hear("ready")
                await publisher.say("go", None)
                return await receiver.hear("latencies")

    async def by_hand(self, chunks: int) -> float:
        async with _stream(self._url, self._name()) as (client, name):
            return chunks / await _followed(client, name, chunks)

    async def baselines(self, chunks: int) -> dict[str, float]:
        async with _stream(self._url, self._name()) as (client, name):
            jetstream = client.jetstream()
            begin = time.perf_counter()
            for _ in range(chunks):
                await jetstream.publish(f"{name}.s.0", CHUNK)
            seconds = time.perf_counter() - begin
        return {
            "one awaited publish with acknowledgement a chunk": chunks / seconds,
            "the same, read by an ordered consumer meanwhile": await self.by_hand(chunks),
        }


async def _connect(url: str) -> Client:
    """Connect to any of a URL's hosts; its query is streamhub's."""
    parts = urlsplit(url)
    userinfo, at, hosts = parts.netloc.rpartition("@")
    return await nats.connect([f"{parts.scheme}://{userinfo}{at}{host}" for host in hosts.split(",")])


@asynccontextmanager
async def _stream(url: str, name: str) -> AsyncGenerator[tuple[Client, str]]:
    """Make a JetStream stream as streamhub does, for the time of a block."""
    client = await _connect(url)
    wish = {
        "name": name,
        "subjects": [f"{name}.s.*"],
        "allow_direct": True,
        "republish": {"src": f"{name}.s.*", "dest": f"{name}.live.{{{{wildcard(1)}}}}"},
        "num_replicas": int(dict(parse_qsl(urlsplit(url).query)).get("replicas", 1)),
    }
    try:
        await client.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(wish).encode(), timeout=5)
        yield client, name
        await client.request(f"$JS.API.STREAM.DELETE.{name}", timeout=5)
    finally:
        await client.close()


async def _write(client: Client, name: str, flushes: Flushes) -> None:
    async def chain(stream: int, counts: Sequence[int]) -> None:
        # One at a time on its subject, as anything is that may not be doubled or reordered.
        for count in counts:
            await client.request(f"{name}.s.{stream}", pack_chunks([CHUNK] * count), timeout=30)

    streams = max(map(len, flushes))
    await asyncio.gather(
        *(chain(stream, [counts[stream] for counts in flushes if stream < len(counts)]) for stream in range(streams))
    )


async def _read(client: Client, name: str) -> list[bytes]:
    chunks: list[bytes] = []
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    start = 1
    while True:
        query = {"seq": start, "next_by_subj": f"{name}.s.0", "batch": _PAGE}
        await client.publish(f"$JS.API.DIRECT.GET.{name}", json.dumps(query).encode(), reply=inbox)
        taken = 0
        while True:
            message = await subscription.next_msg(timeout=10)
            headers = message.headers or {}
            if "Status" in headers:
                break
            chunks += unpack_chunks(message.data)
            taken, start = taken + 1, int(headers["Nats-Sequence"]) + 1
        if taken < _PAGE:
            await subscription.unsubscribe()
            return chunks


async def _followed(client: Client, name: str, chunks: int) -> float:
    jetstream = client.jetstream()
    subscription = await jetstream.subscribe(f"{name}.s.0", ordered_consumer=True)

    async def follow() -> None:
        for _ in range(chunks):
            await subscription.next_msg(timeout=30)

    begin = time.perf_counter()
    following = asyncio.create_task(follow())
    for _ in range(chunks):
        await jetstream.publish(f"{name}.s.0", CHUNK)
    await following
    seconds = time.perf_counter() - begin
    await subscription.unsubscribe()
    return seconds


async def publish(caller: Caller, *, url: str, name: str, **load: float) -> None:
    """Role: store each chunk; the server pushes it."""
    plan = Load(**load)  # pyright: ignore[reportArgumentType]
    client = await _connect(url)
    calls: set[asyncio.Task[Msg]] = set()

    async def send(stream: int, chunk: bytes) -> None:
        call = asyncio.create_task(client.request(f"{name}.s.{stream}", chunk, timeout=30))
        calls.add(call)
        call.add_done_callback(calls.discard)

    await caller.hear("go")
    freeze_heap()
    await pace(plan, send)
    await asyncio.gather(*calls)
    await client.close()


async def publish_by_hand(caller: Caller, *, url: str, name: str, **load: float) -> None:
    """Role: publish each chunk, and wait for its acknowledgement before the next one of its stream."""
    plan = Load(**load)  # pyright: ignore[reportArgumentType]
    client = await _connect(url)
    jetstream = client.jetstream()
    await caller.hear("go")
    freeze_heap()
    await pace(plan, lambda stream, chunk: jetstream.publish(f"{name}.s.{stream}", chunk, timeout=30))
    await client.close()


async def receive_by_consumers(caller: Caller, *, url: str, name: str, **load: float) -> None:
    """Role: take what an ordered consumer for each stream delivers."""
    plan = Load(**load)  # pyright: ignore[reportArgumentType]
    ages: list[int | None] = []
    await _receive(caller, url, name, plan, lambda _, chunk: ages.append(age_ns(chunk)), consumers=True)
    await caller.say("latencies", [age for age in ages if age is not None])


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


async def _receive(
    caller: Caller, url: str, name: str, plan: Load, take: Callable[[int, bytes], None], *, consumers: bool = False
) -> None:
    client = await _connect(url)
    left, done = plan.streams * plan.chunks, asyncio.Event()

    def taking(stream: int) -> Callable[[Msg], Awaitable[None]]:
        async def taken(message: Msg) -> None:
            nonlocal left
            left -= 1
            take(stream, message.data)
            if not left:
                done.set()

        return taken

    for stream in range(plan.streams):
        if consumers:
            await client.jetstream().subscribe(f"{name}.s.{stream}", cb=taking(stream), ordered_consumer=True)
        else:
            await client.subscribe(f"{name}.live.{stream}", cb=taking(stream))
    await client.flush()
    freeze_heap()
    await caller.say("ready", None)
    await done.wait()
    await client.close()
