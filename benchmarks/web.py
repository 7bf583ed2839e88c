"""The web side: what HTTP adds to a chunk's way, and a thousand clients of one process beside sse-starlette.

python -m benchmarks.web [--rounds N] [--seconds S] [--url redis://…]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from statistics import median, quantiles

from benchmarks.servers import redis_server
from streamhub import Hub

HOST = "127.0.0.1"
DATA = re.compile(rb"data: (\d{19}) ")


@asynccontextmanager
async def serving(app: str, port: int, **variables: str) -> AsyncIterator[int]:
    """Run an app of web_apps in a uvicorn of its own; yield its process id."""
    command = [sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.web_apps:{app}", "--port", str(port)]
    environ = {**os.environ, **variables}
    process = subprocess.Popen([*command, "--log-level", "critical"], env=environ)  # noqa: ASYNC220 - at once
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            break
        yield process.pid
    finally:
        process.kill()
        process.wait()


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
        now = time.time_ns()
        self._ages += [now - int(made) for made in DATA.findall(data)]


async def connect(port: int, count: int, streams: int, ages: list[int]) -> list[Client]:
    clients: list[Client] = []
    loop = asyncio.get_running_loop()
    for number in range(count):
        _, client = await loop.create_connection(lambda number=number: Client(f"k{number % streams}", ages), HOST, port)
        clients.append(client)
        if number % 50 == 49:
            await asyncio.gather(*(each.heard.wait() for each in clients))
    await asyncio.gather(*(each.heard.wait() for each in clients))
    return clients


def milliseconds(ages: list[int]) -> tuple[float, float]:
    """Return median and 99th percentile."""
    return median(ages) / 1e6, quantiles(ages, n=100)[98] / 1e6


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


async def crowd(app: str, port: int, seconds: float) -> dict[str, float]:
    """1 000 clients on 100 streams, 1 event/s each."""
    ages: list[int] = []
    async with serving(app, port, STREAMS="100", RATE="1", STREAMHUB_URL="memory://") as pid:
        await asyncio.sleep(2)
        empty = resident_kib(pid)
        clients = await connect(port, 1000, 100, ages)
        await asyncio.sleep(1)
        ages.clear()
        before = cpu_seconds(pid)
        await asyncio.sleep(seconds)
        used = cpu_seconds(pid) - before
        p50, p99 = milliseconds(ages)
        memory = (resident_kib(pid) - empty) / len(clients)
        for client in clients:
            assert client.transport is not None
            client.transport.abort()
    rate = len(ages) / seconds
    return {"p50 ms": p50, "p99 ms": p99, "cpu %": 100 * used / seconds, "KiB/client": memory, "events/s": rate}


async def added(url: str, port: int, seconds: float) -> dict[str, float]:
    """64 streams x 50 chunks/s on Redis: through a subscription in this process, and through uvicorn."""
    http: list[int] = []
    direct: list[int] = []
    async with serving("ours", port, STREAMHUB_URL=url), Hub.from_url(url) as writer, Hub.from_url(url) as reader:
        keys = [f"k{number}" for number in range(64)]
        for key in keys:
            await writer.delete(key)

        async def source(producer: object) -> AsyncIterator[str]:
            while True:
                yield f"{time.time_ns()} and a few words"
                await asyncio.sleep(1 / 50)

        async def subscribe(key: str) -> None:
            async for chunk in reader.subscribe(key):
                direct.append(time.time_ns() - int(chunk.data[:19]))  # noqa: PERF401 - on arrival

        for key in keys:
            await writer.start(key, source, run=f"{time.time_ns()}")
        clients = await connect(port, 64, 64, http)
        await asyncio.sleep(1)
        http.clear()
        await asyncio.sleep(seconds)
        through, _ = milliseconds(http)
        for client in clients:
            assert client.transport is not None
            client.transport.abort()
        tasks = [asyncio.create_task(subscribe(key)) for key in keys]
        await asyncio.sleep(1)
        direct.clear()
        await asyncio.sleep(seconds)
        without, _ = milliseconds(direct)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await writer.drain(0)
    return {"through HTTP, p50 ms": through, "subscription, p50 ms": without, "added ms": through - without}


async def main(rounds: int, seconds: float, url: str | None) -> None:
    with nullcontext(url) if url else redis_server() as place:
        for number in range(rounds):
            print("round", number + 1, "what HTTP adds:", _line(await added(place, 18_701, seconds)), flush=True)
            for app in ("ours", "peer"):
                print("round", number + 1, f"{app:5}", _line(await crowd(app, 18_702, seconds)), flush=True)


def _line(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in figures.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--url", default=None)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.seconds, given.url))
