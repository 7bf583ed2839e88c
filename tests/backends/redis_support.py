"""What tests of the redis backend share: a harness over a server of the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import redis
from redis_cluster import Cluster
from redis_sentinel import SentinelSetup
from redis_servers import ForeignServer, RedisServer
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


FEW_ABILITIES = frozenset({"processes", "leftovers", "wipe"})


class RedisHarness(Harness):
    """A prefix for each case, on a server that the tests may do anything to.

    The backend's user has no more rights than ``docs/backends/redis.md`` lists.
    """

    def __init__(
        self,
        server: RedisServer | ForeignServer | Cluster | SentinelSetup,
        *,
        options: str = "timeout_seconds=2&connect_seconds=2",
    ) -> None:
        super().__init__()
        self.server = server
        self.nodes = _masters(server)
        self.capabilities = FEW_ABILITIES if isinstance(server, ForeignServer) else ABILITIES
        self.name = "redis"
        if isinstance(server, Cluster | SentinelSetup):
            self.lease_seconds = 1.2  # five to seven servers share the machine with the tests
        self.store_prefix = f"streamhub:{self.token}"
        self.url = f"{server.least_url}?prefix={self.store_prefix}&{options}"

    async def connect(self) -> RedisBackend:
        backend = RedisBackend(self.url or "")
        await backend.connect()
        return backend

    def _keys(self, client: redis.Redis) -> list[bytes]:
        return list(client.scan_iter(match=f"{self.store_prefix}:*", count=1000))

    def _admins(self) -> Iterator[redis.Redis]:
        for node in self.nodes:
            with node.admin() as client:
                yield client

    async def leftovers(self) -> int:
        return sum(len(self._keys(client)) for client in self._admins())

    async def wipe(self) -> None:
        for client in self._admins():
            for key in self._keys(client):
                client.delete(key)

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        for node in self.nodes:
            node.freeze()
        try:
            yield
        finally:
            for node in self.nodes:
                node.thaw()

    @asynccontextmanager
    async def down(self) -> AsyncGenerator[None]:
        for node in self.nodes:
            node.stop()
        try:
            yield
        finally:
            if isinstance(self.server, Cluster):
                self.server.restart()
            else:
                self.nodes[0].start()

    async def kill_connections(self) -> None:
        for client in self._admins():
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)

    async def kill_notifications(self) -> None:
        for client in self._admins():
            client.client_kill_filter(_type="pubsub")

    async def flush_caches(self) -> None:
        for client in self._admins():
            client.script_flush()


def _masters(server: RedisServer | ForeignServer | Cluster | SentinelSetup) -> list[Any]:
    if isinstance(server, Cluster):
        return server.masters
    return [server.master if isinstance(server, SentinelSetup) else server]


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
