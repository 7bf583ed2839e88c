"""The web side: what HTTP adds to a chunk's way, and a thousand clients of one process beside sse-starlette.

python -m benchmarks.web [--rounds N] [--seconds S] [--url redis://…]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from statistics import median, quantiles

from benchmarks.load import Load, freeze_heap, pace
from benchmarks.peers import Caller, start_process
from benchmarks.servers import redis_server
from benchmarks.web_apps import stamp
from streamhub import Hub
from tests.redis_servers import free_port

HOST = "127.0.0.1"
DATA = re.compile(rb"data: (\d{19}) ")
WARMUP_SECONDS = 1.0
STREAMS, RATE = 64, 50.0
CLIENTS, CROWD_STREAMS, CROWD_RATE = 1000, 100, 5.0

Figures = dict[str, float]


@asynccontextmanager
async def serving(app: str, **variables: str) -> AsyncIterator[tuple[int, int]]:
    """Run an app of web_apps in a uvicorn of its own; yield its port and process id."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.web_apps:{app}", "--port", str(port),
        "--log-level", "critical", env={**os.environ, **variables},
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            while not await _listening(port):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        await process.wait()


async def _listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


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


async def counted(ages: list[int], seconds: float) -> Figures:
    """Let it run, then look for so many seconds."""
    await asyncio.sleep(WARMUP_SECONDS)
    ages.clear()
    await asyncio.sleep(seconds)
    found = ages.copy()
    return {"p50 ms": median(found) / 1e6, "p99 ms": quantiles(found, n=100)[98] / 1e6, "events": len(found)}


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


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
            await asyncio.sleep(WARMUP_SECONDS)
            used = -cpu_seconds(pid)
            found = await counted(ages, seconds)
            used += cpu_seconds(pid)
            each = (resident_kib(pid) - empty) / CLIENTS
    expected = seconds * CLIENTS * CROWD_RATE
    cost = used / (seconds + WARMUP_SECONDS) / CLIENTS / CROWD_RATE
    return {
        **found,
        "of the events %": 100 * found["events"] / expected,
        "CPU µs/event": 1e6 * cost,
        "KiB/client": each,
    }


async def main(rounds: int, seconds: float, url: str | None) -> None:
    with nullcontext(url) if url else redis_server() as place:
        for number in range(1, rounds + 1):
            http, direct = await through_http(place, seconds), await directly(place, seconds)
            _say(number, "through uvicorn", http)
            _say(number, "subscription", direct)
            _say(number, "HTTP adds", {"p50 ms": http["p50 ms"] - direct["p50 ms"]})
            for app in ("ours", "peer"):
                _say(number, app, await crowd(app, seconds))


def _say(number: int, what: str, figures: Figures) -> None:
    print(
        f"round {number}", f"{what:15}", ", ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--url", default=None)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.seconds, given.url))
