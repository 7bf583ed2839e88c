"""What tests of the redis backend share: a harness over a server of the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from redis_servers import RedisServer
from streamhub_redis import RedisBackend

from streamhub.conformance import Harness

ABILITIES = frozenset(
    {
        "processes",
        "leftovers",
        "wipe",
        "pause",
        "restart",
        "kill_connections",
        "kill_notifications",
        "flush_caches",
    }
)


class RedisHarness(Harness):
    """A prefix for each case, on a server that the tests may do anything to.

    The backend's user has no more rights than ``docs/backends/redis.md`` lists.
    """

    capabilities = ABILITIES

    def __init__(self, server: RedisServer, *, options: str = "timeout_seconds=2&connect_seconds=2") -> None:
        super().__init__()
        self.server = server
        self.name = "redis"
        self.store_prefix = f"streamhub:{self.token}"
        self.url = f"{server.least_url}?prefix={self.store_prefix}&{options}"

    async def connect(self) -> RedisBackend:
        backend = RedisBackend(self.url or "")
        await backend.connect()
        return backend

    def _keys(self) -> list[bytes]:
        with self.server.admin() as client:
            return list(client.scan_iter(match=f"{self.store_prefix}:*", count=1000))

    async def leftovers(self) -> int:
        return len(self._keys())

    async def wipe(self) -> None:
        keys = self._keys()
        if keys:
            with self.server.admin() as client:
                client.delete(*keys)

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        self.server.freeze()
        try:
            yield
        finally:
            self.server.thaw()

    @asynccontextmanager
    async def down(self) -> AsyncGenerator[None]:
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()

    async def kill_connections(self) -> None:
        with self.server.admin() as client:
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)

    async def kill_notifications(self) -> None:
        with self.server.admin() as client:
            client.client_kill_filter(_type="pubsub")

    async def flush_caches(self) -> None:
        with self.server.admin() as client:
            client.script_flush()


FLAVOURS = ("8.2", "6.2", "valkey")


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[RedisBackend]:
    """Connect to a URL inside the block."""
    backend = RedisBackend(url)
    await backend.connect()
    try:
        yield backend
    finally:
        await backend.aclose()


async def until(condition: Callable[[], bool], *, seconds: float = 15.0) -> None:
    """Wait until something about a server is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
