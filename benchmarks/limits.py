"""How many streams one namespace of NATS takes: ``python -m benchmarks.limits [--streams 100000]``.

A nats-server of its own is started, with streams in files. What is printed: how long the streams took to make, what an
append among them takes, the server's memory and files, a listing, a restart; then all are deleted, and others expire
while nobody uses them, until nothing is left of either.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.load import CHUNK
from streamhub import Hub, Retention
from streamhub.protocols import Backend, StreamStore
from streamhub.registry import open_url
from streamhub.types import Append, Appended

AT_ONCE = 200
SAMPLES = 2000
SHORT = Retention(unfinished_seconds=3.0, ended_seconds=3.0, fence_seconds=2.0)


async def begin(store: StreamStore, key: str, retention: Retention) -> None:
    """Open a stream, and append a chunk."""
    await store.open(key, 1, owner="limits", run="run", expect=None, resume=False, retention=retention)
    await append(store, key, 1)


async def append(store: StreamStore, key: str, index: int) -> None:
    """Append a chunk."""
    (answer,) = await store.append([Append(key, 1, index, (CHUNK,), os.urandom(12))])
    assert isinstance(answer, Appended), answer


async def for_each(keys: list[str], call: Callable[[str], Awaitable[object]]) -> float:
    """Do something for every key, many at once; return the seconds it took."""
    started = time.perf_counter()
    for first in range(0, len(keys), AT_ONCE):
        await asyncio.gather(*map(call, keys[first : first + AT_ONCE]))
    return time.perf_counter() - started


def tell(what: str, value: float, unit: str) -> None:
    """Print a figure as soon as it is there."""
    print(f"{what:58} {value:12.2f} {unit}", flush=True)


def size_of(server: Any) -> None:
    """Tell the server's memory and files."""
    status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    tell("  the server's memory", kilobytes / 1024, "MiB")
    files = (path.stat().st_size for path in Path(server.directory).rglob("*") if path.is_file())
    tell("  its files", sum(files) / 2**20, "MiB")


async def messages_in(server: Any) -> int:
    """Count what is stored, but for which lengths of life there are, which belongs to no stream."""
    count = 0
    for name in ("SH_limits", "SHL_limits", "SHC_limits"):
        info = await server.api(f"STREAM.INFO.{name}", {"subjects_filter": ">"})
        subjects = info["state"].get("subjects") or {}
        count += sum(number for subject, number in subjects.items() if not subject.endswith(".lives"))
    return count


async def until_empty(server: Any) -> float:
    """Wait until nothing is stored; return the seconds it took."""
    started = time.perf_counter()
    while await messages_in(server):  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.2)
    return time.perf_counter() - started


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Backend]:
    """Connect to a URL inside the block."""
    backend, _ = open_url(url)
    await backend.connect()
    try:
        yield backend
    finally:
        await backend.aclose()


async def measure_many(server: Any, url: str, keys: list[str]) -> None:
    """Make streams, use them, start the server again, and delete them."""
    lasting = Retention(fence_seconds=SHORT.fence_seconds)
    async with connected(url) as backend:
        store = backend.store
        size_of(server)
        seconds = await for_each(keys, lambda key: begin(store, key, lasting))
        tell(f"{len(keys)} streams opened, a chunk appended to each", seconds, "s")
        size_of(server)
        taken: list[float] = []
        for key in keys[: -1 : max(1, len(keys) // SAMPLES)]:
            started = time.perf_counter()
            await append(store, key, 2)
            taken.append(1000 * (time.perf_counter() - started))
        shares = quantiles(taken, n=100)
        tell("  an append to one of them, p50", shares[49], "ms")
        tell("  an append to one of them, p99", shares[98], "ms")
        started = time.perf_counter()
        found = [key async for key in store.keys("limits:")]
        tell("  listing all keys", time.perf_counter() - started, "s")
        assert sorted(found) == sorted(keys)
        started = time.perf_counter()
        assert await store.sweep(1000) == 0
        tell("  a sweep that finds nothing", 1000 * (time.perf_counter() - started), "ms")
    started = time.perf_counter()
    server.stop()
    server.start()
    tell("  stopping the server, and starting it, until it answers", time.perf_counter() - started, "s")
    async with connected(url) as backend:
        started = time.perf_counter()
        await append(backend.store, keys[-1], 2)
        tell("  the first append after that", 1000 * (time.perf_counter() - started), "ms")
        size_of(server)
        tell("  deleting all", await for_each(keys, backend.store.delete), "s")
    tell("  until nothing is left, after the last was deleted", await until_empty(server), "s")
    size_of(server)


async def measure_expiry(server: Any, url: str, keys: list[str]) -> None:
    """Make streams that expire while hubs do nothing but sweep."""
    async with connected(url) as backend:
        seconds = await for_each(keys, lambda key: begin(backend.store, key, SHORT))
        tell(f"{len(keys)} streams that live 3 s, their fences 2 s", seconds, "s")
    async with Hub.from_url(f"{url}&sweep_seconds=1"):
        tell("  until nothing is left, with one idle hub", await until_empty(server), "s")


async def main(streams: int) -> None:
    """Measure."""
    from tests.nats_servers import NEWEST, binary, started

    path = binary(NEWEST)
    if path is None:
        raise SystemExit("needs the extra `test`, which brings a server")
    with started(path) as server:
        url = f"{server.url}?namespace=limits"
        await measure_many(server, url, [f"limits:{number}" for number in range(streams)])
        await measure_expiry(server, url, [f"expiry:{number}" for number in range(max(1, streams // 10))])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__.partition(":")[0])
    parser.add_argument("--streams", type=int, default=100_000, help="how many; default: 100000")
    asyncio.run(main(parser.parse_args(sys.argv[1:]).streams))
