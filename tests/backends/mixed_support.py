"""A harness over three servers: chunks in PostgreSQL, leases in Redis, cancel requests in NATS."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import servers
from nats_support import NatsHarness
from postgres_support import PostgresHarness
from redis_support import RedisHarness

from streamhub.conformance import Harness
from streamhub.conformance.mixed import MixedBackend


class MixedHarness(Harness):
    """What happens to the server happens to all three."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "postgresql, redis and nats"
        self.chunks = PostgresHarness(servers.any_postgres_server("18"))
        self.claims = RedisHarness(servers.any_redis_server("8.2"))
        self.requests = NatsHarness(servers.any_nats_server("2.15"))
        self.parts: tuple[Harness, ...] = (self.chunks, self.claims, self.requests)
        # Nothing of NATS's can be forgotten.
        self.capabilities = self.chunks.capabilities & (self.requests.capabilities | {"flush_caches"})
        self.capabilities &= self.claims.capabilities
        self.lease_seconds = self.chunks.lease_seconds
        self.short_seconds = 0.6  # each call passes several servers, which share the machine with the tests
        self.url, self.leases_url, self.cancels_url = (part.url for part in self.parts)

    async def __aenter__(self) -> Self:
        for part in self.parts:
            await part.__aenter__()
        return self

    async def connect(self) -> MixedBackend:
        async with AsyncExitStack() as stack:
            connected = []
            for part in self.parts:
                connected.append(await part.connect())
                stack.push_async_callback(connected[-1].aclose)
            stack.pop_all()
        return MixedBackend(*connected)

    async def leftovers(self) -> int:
        return sum([await part.leftovers() for part in self.parts])

    async def wipe(self) -> None:
        for part in self.parts:
            await part.wipe()

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for part in self.parts:
                await stack.enter_async_context(part.paused())
            yield

    @asynccontextmanager
    async def down(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for part in self.parts:
                await stack.enter_async_context(part.down())
            yield

    async def kill_connections(self) -> None:
        for part in self.parts:
            await part.kill_connections()

    async def kill_notifications(self) -> None:
        # Redis keeps the leases only: nobody listens to it.
        await self.chunks.kill_notifications()
        await self.requests.kill_notifications()

    async def flush_caches(self) -> None:
        await self.chunks.flush_caches()
        await self.claims.flush_caches()

    async def aclose(self) -> None:
        async with AsyncExitStack() as stack:
            for part in self.parts:
                stack.push_async_callback(part.aclose)
            await super().aclose()
