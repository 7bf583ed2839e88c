"""What tests of the nats backend share: a harness over a server of the tests' own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import servers
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeoutError
from nats_servers import ForeignServer, NatsCluster, NatsServer
from streamhub_nats import NatsBackend
from streamhub_nats.target import parse_url

from streamhub.conformance import Harness, UrlHarness
from streamhub.conformance.writer import Writer
from streamhub.protocols import Backend
from streamhub.types import Retention

ABILITIES = frozenset({"processes", "leftovers", "wipe", "pause", "restart", "kill_connections", "kill_notifications"})
"""All but flush_caches: there is nothing that this server could forget."""

FEW_ABILITIES = frozenset({"processes", "leftovers", "wipe"})


class NatsHarness(Harness):
    """A namespace for each case, on a server that the tests may do anything to.

    The backend's user has no more permissions than ``docs/backends/nats.md`` lists, so the namespace has always the
    same name, and is made for the case by another user.
    """

    def __init__(
        self,
        server: NatsServer | NatsCluster | ForeignServer,
        *,
        options: str = "timeout_seconds=2&connect_seconds=2",
    ) -> None:
        super().__init__()
        self.server = server
        self.nodes: list[NatsServer] = _nodes(server)
        self.capabilities = FEW_ABILITIES if isinstance(server, ForeignServer) else ABILITIES
        self.name = "nats"
        foreign = isinstance(server, ForeignServer)
        self.namespace = f"t{self.token}" if foreign else "streamhub"
        self.streams = [f"{prefix}_{self.namespace}" for prefix in ("SH", "SHL", "SHC")]
        self._maker = f"{server.url}?namespace={self.namespace}&{options}"
        self.url = self._maker
        if not isinstance(server, ForeignServer):
            self.url = f"{server.least_url}?create=false&{options}"
        self._admin: Client | None = None

    async def __aenter__(self) -> Self:
        if not isinstance(self.server, ForeignServer):
            for stream in self.streams:  # what a case that was broken off has left
                await self.api(f"STREAM.DELETE.{stream}")
            async with connected(self._maker):
                pass
        return self

    async def connect(self) -> NatsBackend:
        backend = NatsBackend(self.url or "")
        await backend.connect()
        return backend

    async def api(self, endpoint: str, query: dict[str, object] | None = None) -> dict[str, object]:
        if self._admin is None or not self._admin.is_connected:
            target, _ = parse_url(self.server.url)
            self._admin = Client()
            await self._admin.connect(
                [f"{target.scheme}://{host}" for host in target.hosts],
                user=target.username,
                password=target.password,
                token=target.token,
                connect_timeout=10,
                allow_reconnect=False,
            )
        question = json.dumps(query or {}).encode()
        for attempts_left in (2, 1, 0):
            try:
                return json.loads((await self._admin.request(f"$JS.API.{endpoint}", question, timeout=10)).data)
            except NatsTimeoutError:  # a busy cluster may never answer; what is asked here may be asked again
                if not attempts_left:
                    raise
        raise AssertionError

    async def leftovers(self) -> int:
        count = 0
        for stream in self.streams:
            info: dict = await self.api(f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
            subjects = info["state"].get("subjects") or {}
            # Which lengths of life there are belongs to no key.
            count += sum(number for subject, number in subjects.items() if not subject.endswith(".lives"))
        return count

    async def wipe(self) -> None:
        for stream in self.streams:
            await self.api(f"STREAM.PURGE.{stream}")

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
            if isinstance(self.server, NatsCluster):
                await asyncio.to_thread(self.server.start)
            else:
                await asyncio.to_thread(self.nodes[0].start)

    async def kill_connections(self) -> None:
        for node in self.nodes:
            await node.kick()

    async def kill_notifications(self) -> None:
        for node in self.nodes:
            await node.kick("notifications")

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            try:
                for stream in self.streams:
                    await self.api(f"STREAM.DELETE.{stream}")
            finally:
                if self._admin is not None:
                    await self._admin.close()


def _nodes(server: NatsServer | NatsCluster | ForeignServer) -> list[NatsServer]:
    if isinstance(server, NatsCluster):
        return server.servers
    return [server] if isinstance(server, NatsServer) else []


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[NatsBackend]:
    """Connect to a URL inside the block."""
    backend = NatsBackend(url)
    await backend.connect()
    try:
        yield backend
    finally:
        await backend.aclose()


@asynccontextmanager
async def own_namespace() -> AsyncGenerator[UrlHarness]:
    """Yield a harness whose namespace is removed at the end."""
    server = servers.nats_server("2.15")
    async with UrlHarness(f"{server.url}?namespace={{unique}}") as harness:
        yield harness
        for prefix in ("SH", "SHL", "SHC"):
            await server.api(f"STREAM.DELETE.{prefix}_{harness.token}")


async def begun(backend: Backend, key: str, retention: Retention | None = None) -> Writer:
    """Open a run with a chunk."""
    writer = Writer(backend.store, key, retention=retention)
    await writer.open()
    await writer.append(b"first")
    return writer


@asynccontextmanager
async def paused_call(owner: Any, name: str, skip: int = 0) -> AsyncGenerator[tuple[asyncio.Event, asyncio.Event]]:
    """Let a call of a method, by default the next one, set the first event, and wait for the second."""
    there, go, real = asyncio.Event(), asyncio.Event(), getattr(owner, name)

    async def waiting(*args: Any, **more: Any) -> Any:
        nonlocal skip
        skip -= 1
        if skip < 0:
            there.set()
            await go.wait()
        return await real(*args, **more)

    setattr(owner, name, waiting)
    try:
        yield there, go
    finally:
        setattr(owner, name, real)


@asynccontextmanager
async def paused_write(backend: Any, part: str, after: int = 0) -> AsyncGenerator[tuple[asyncio.Event, asyncio.Event]]:
    """Let a write of a backend, by default the next one, wait, also if it would begin at once; see ``paused_call``."""
    ledger = getattr(backend._session, part)
    real = ledger.begin
    async with paused_call(ledger, "write", after) as (there, go):

        def begin(*args: Any, **more: Any) -> Callable[[], Awaitable[int]]:
            async def written() -> int:
                there.set()
                await go.wait()
                return await real(*args, **more)()

            return written

        if not after:
            ledger.begin = begin
        try:
            yield there, go
        finally:
            ledger.begin = real


async def until(condition: Callable[[], bool], *, seconds: float = 15.0) -> None:
    """Wait until something about a server is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
