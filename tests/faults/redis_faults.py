"""What the fault tests on Redis share: hubs on a server, and what is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from redis_servers import RedisServer

from streamhub.conformance import UrlHarness

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
