"""What the fault tests on Redis share: hubs on a server, work for them, and what must come of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlencode

from redis_servers import RedisServer

from streamhub import Chunk, Hub, StreamHubError
from streamhub.conformance import UrlHarness
from streamhub.conformance.drive import data_of, indexes_of, reading, replay, soon, words

ROUNDS = int(os.environ.get("STREAMHUB_FAULT_ROUNDS", "1"))
"""How often a fault is repeated that strikes at a random moment."""

STEADY = {"lease_seconds": 600.0}
"""Settings of a hub whose leases outlive whatever happens to the server."""

PATIENCE = 30.0

OPTIONS = {"timeout_seconds": 1.0, "connect_seconds": 1.0, "ping_seconds": 0.5}


def harness_on(address: str, **options: object) -> UrlHarness:
    """Return a harness over a URL without a query; times are short unless ``options`` say otherwise."""
    return UrlHarness(f"{address}?{urlencode(OPTIONS | options)}", capabilities=frozenset({"processes"}))


def through(port: int) -> str:
    """Return the address of a proxy."""
    return f"redis://127.0.0.1:{port}/0"


async def admin(server: RedisServer, *command: object) -> object:
    """Run a command beside the backend, without stopping the event loop."""

    def run() -> object:
        with server.admin() as client:
            return client.execute_command(*command)

    return await asyncio.to_thread(run)


async def kill_clients(server: RedisServer, kind: str) -> None:
    """Let the server drop its connections of a kind: ``normal`` or ``pubsub``."""
    await admin(server, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def assert_whole(chunks: list[Chunk], source: list[bytes]) -> None:
    """Fail unless every chunk is there once, in order, at its own index."""
    assert data_of(chunks) == source
    assert indexes_of(chunks) == list(range(1, len(source) + 1))


async def whole_or_told(chunks: Awaitable[list[Chunk]], source: list[bytes]) -> StreamHubError | None:
    """Fail unless a subscriber got all, or a typed error; return the error."""
    try:
        assert_whole(await soon(chunks, PATIENCE), source)
    except StreamHubError as exc:
        return exc
    return None


async def work_under(
    disturb: Callable[[int], Awaitable[object]],
    *,
    producing: Hub,
    following: Iterable[Hub],
    keys: list[str],
    chunks: int = 120,
    every: int = 20,
) -> None:
    """Produce streams and follow each from every hub, disturbed every so many chunks, while more is on its way.

    All must arrive once and in order at every subscriber, end, and be what is stored.
    """
    hubs, source = list(following), words(chunks)
    async with AsyncExitStack() as readers:
        lives = [
            await readers.enter_async_context(reading(hub, key, wait=PATIENCE, run="r1"))
            for hub in hubs
            for key in keys
        ]
        async with AsyncExitStack() as producers:
            opened = [await producers.enter_async_context(producing.produce(key, run="r1")) for key in keys]
            disturbance: asyncio.Task[object] | None = None
            for number, chunk in enumerate(source, 1):
                for producer in opened:
                    await producer.send(chunk)
                if number % every == 0:
                    disturbance = asyncio.ensure_future(disturb(number))
                elif number % 4 == 0:
                    await soon(asyncio.gather(*(producer.flush() for producer in opened)), PATIENCE)
                    if disturbance is not None:
                        await soon(disturbance, PATIENCE)
            assert disturbance is not None
            await soon(disturbance, PATIENCE)
        for live in lives:
            assert_whole(await live.finished(PATIENCE), source)
    for key in keys:
        assert_whole(await replay(hubs[0], key), source)


@asynccontextmanager
async def memory_limited(server: RedisServer) -> AsyncGenerator[None]:
    """Let the server refuse whatever needs memory, inside the block."""
    await admin(server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    await admin(server, "CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        await admin(server, "CONFIG", "SET", "maxmemory", "0")


def log_files(server: RedisServer) -> list[str]:
    """Return the server's append-only files that grow, of any version's layout."""
    found = [*server.directory.glob("appendonlydir/*.incr.aof"), *server.directory.glob("appendonly.aof")]
    return [str(path) for path in found]


def connections_of(server: RedisServer, name: str) -> int:
    """Count the connections of a client name."""
    with server.admin() as client:
        return sum(1 for found in client.client_list() if found["name"] == name)
