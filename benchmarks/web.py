"""The web side: what HTTP adds to a chunk's way, and a thousand clients of one process beside sse-starlette.

python -m benchmarks.web [--rounds N] [--seconds S] [--url redis://…]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from statistics import median, quantiles

from benchmarks.http_servers import HOST, running, uvicorn
from benchmarks.load import Load, freeze_heap, pace
from benchmarks.peers import Caller, start_process
from benchmarks.servers import redis_server
from benchmarks.web_apps import stamp
from streamhub import Hub
from tests.ports import free_port

DATA = re.compile(rb"data: (\d{19}) ")
WARMUP_SECONDS = 1.0
STREAMS, RATE = 64, 50.0
CLIENTS, CROWD_STREAMS, CROWD_RATE = 1000, 100, 5.0

Figures = dict[str, float]


@asynccontextmanager
async def serving(app: str, **variables: str) -> AsyncIterator[tuple[int, int]]:
    """Run an app of web_apps in a uvicorn of its own; yield its port and process id."""
    port = free_port()
    async with running(uvicorn(f"benchmarks.web_apps:{app}", port), port, **variables) as pid:
        yield port, pid


class Client(asyncio.Protocol):
    """Reads one event stream; notes how old each event is on arrival."""

    def __init__(self, key: str, ages: list[int]) -> None:
        self._key = key
        self._ages = ages
        self.heard = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(f"GET /{self._key} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.heard.set()
        now = time.monotonic_ns()
        self._ages += [now - int(made) for made in DATA.findall(data)]


@asynccontextmanager
async def clients(port: int, keys: Sequence[str], count: int, ages: list[int]) -> AsyncIterator[None]:
    """Hold so many clients, which have all heard something, inside the block."""
    loop, held = asyncio.get_running_loop(), list[Client]()
    try:
        for number in range(count):
            key = keys[number % len(keys)]
            held.append((await loop.create_connection(lambda key=key: Client(key, ages), HOST, port))[1])
            if number % 50 == 49:
                await held[-1].heard.wait()
        await asyncio.gather(*(client.heard.wait() for client in held))
        yield
    finally:
        for client in held:
            if client.transport is not None:
                client.transport.abort()


async def counted(ages: list[int], seconds: float, pid: int | None = None) -> Figures:
    """Let it run, then look for so many seconds, also at what the process of this id computes."""
    await asyncio.sleep(WARMUP_SECONDS)
    ages.clear()
    used = -cpu_seconds(pid)
    await asyncio.sleep(seconds)
    used += cpu_seconds(pid)
    found = ages.copy()
    figures = {
        "p50 ms": median(found) / 1e6,
        "p99 ms": quantiles(found, n=100)[98] / 1e6,
        "events/s": len(found) / seconds,
    }
    return figures if pid is None else {**figures, "CPU µs/event": 1e6 * used / len(found)}


def cpu_seconds(pid: int | None) -> float:
    """Return what a process's main thread has computed; uvicorn has no other."""
    return 0.0 if pid is None else int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


# --- what HTTP adds


async def publish(caller: Caller, *, url: str, keys: Sequence[str], seconds: float) -> None:
    """Role: open all streams, then send the load, the streams out of step with each other."""
    load = Load(streams=len(keys), rate=RATE, seconds=seconds, warmup_seconds=0)
    async with Hub.from_url(url) as hub, AsyncExitStack() as stack:
        producers = [await stack.enter_async_context(hub.produce(key, unfinished="replace")) for key in keys]
        freeze_heap()
        await caller.say("open")
        await caller.hear("go")
        await pace(load, lambda stream, _: producers[stream].send(stamp()))
        await caller.say("sent")


async def through_http(url: str, seconds: float) -> Figures:
    """The way through uvicorn."""
    keys, ages = [f"http-{number}" for number in range(STREAMS)], list[int]()
    total = seconds + 2 * WARMUP_SECONDS
    async with (
        serving("ours", STREAMHUB_URL=url) as (port, _),
        start_process("benchmarks.web:publish", url=url, keys=keys, seconds=total) as publisher,
    ):
        await publisher.hear("open")
        async with clients(port, keys, STREAMS, ages):
            await publisher.say("go")
            return await counted(ages, seconds)


async def directly(url: str, seconds: float) -> Figures:
    """The way through a subscription in this process."""
    keys, ages = [f"direct-{number}" for number in range(STREAMS)], list[int]()

    async def follow(hub: Hub, key: str) -> None:
        async for chunk in hub.subscribe(key):
            ages.append(time.monotonic_ns() - int(chunk.data[:19]))

    total = seconds + 2 * WARMUP_SECONDS
    async with start_process("benchmarks.web:publish", url=url, keys=keys, seconds=total) as publisher:
        await publisher.hear("open")
        async with Hub.from_url(url) as hub:
            tasks = [asyncio.create_task(follow(hub, key)) for key in keys]
            await publisher.say("go")
            found = await counted(ages, seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return found


# --- a thousand clients


def resident_kib(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


async def crowd(app: str, seconds: float) -> Figures:
    """Clients of streams that the server's own process produces, out of step with each other."""
    ages: list[int] = []
    keys = [f"k{number}" for number in range(CROWD_STREAMS)]
    variables = {"STREAMS": str(CROWD_STREAMS), "RATE": str(CROWD_RATE), "STREAMHUB_URL": "memory://"}
    async with serving(app, **variables) as (port, pid):
        await asyncio.sleep(WARMUP_SECONDS)
        empty = resident_kib(pid)
        async with clients(port, keys, CLIENTS, ages):
            found = await counted(ages, seconds, pid)
            each = (resident_kib(pid) - empty) / CLIENTS
    return {**found, "KiB/client": each}


async def main(rounds: int, seconds: float, url: str | None) -> None:
    found: dict[str, list[Figures]] = {}

    def note(what: str, figures: Figures) -> None:
        found.setdefault(what, []).append(figures)
        _say(f"round {len(found[what])}", what, figures)

    with nullcontext(url) if url else redis_server() as place:
        for _ in range(rounds):
            http, direct = await through_http(place, seconds), await directly(place, seconds)
            note("through uvicorn", http)
            note("subscription", direct)
            note("HTTP adds", {"p50 ms": http["p50 ms"] - direct["p50 ms"]})
            for app in ("ours", "peer"):
                note(app, await crowd(app, seconds))
    for what, figures in found.items():
        # What else the machine does only ever costs time: the least is the least disturbed.
        for summary, choose in (("median", median), ("least", min)):
            _say(summary, what, {name: choose(each[name] for each in figures) for name in figures[0]})


def _say(when: str, what: str, figures: Figures) -> None:
    facts = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    print(f"{when:8} {what:15} {facts}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--url", default=None)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.seconds, given.url))
