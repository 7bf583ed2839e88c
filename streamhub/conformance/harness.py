"""What a case needs of a backend under test: connections, hubs, second processes, and what it can do to the server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, ClassVar, Self
from unittest import mock

import pytest

from streamhub import Hub
from streamhub.conformance.process import Peer, start_peer
from streamhub.observer import Observer
from streamhub.options import redact
from streamhub.protocols import Backend, CancelBus, LeaseManager, StreamStore
from streamhub.registry import open_url
from streamhub.settings import HubSettings

CAPABILITIES: dict[str, str] = {
    "processes": "separate processes that open the harness's URL share its data",
    "leftovers": "what is stored can be counted: leftovers()",
    "wipe": "everything stored can be removed behind the backend's back: wipe()",
    "pause": "the server can be frozen, its connections staying up: paused()",
    "restart": "the server can be stopped and started: down()",
    "kill_connections": "the server can drop every connection: kill_connections()",
    "kill_notifications": "the server can drop the connections that carry notifications only: kill_notifications()",
    "flush_caches": "the server can forget cached scripts or statements: flush_caches()",
}
"""Every optional ability a harness may declare. A case that needs one that is not declared is skipped, and counted."""

CLOSE_SECONDS = 20.0


class Harness:
    """One test's view of one backend; a new one is made for each case.

    Subclass it and write ``make``, and whichever optional abilities the backend's server allows; declare those in
    ``capabilities``. Everything that a case opened is closed by ``aclose``.

    Attributes:
        name: the backend's name, for messages.
        url: lets a second process connect to the same data; None if none can.
        leases_url, cancels_url: where leases and cancel requests live, if elsewhere.
        capabilities: the optional abilities, of ``CAPABILITIES``.
        short_seconds: the shortest retention the cases ask for; raise it for a server with coarser times.
        lease_seconds: how long the cases' leases last, or as long as the backend's shortest one; raise it for a slow
            machine.
        idle_seconds: how long a case lets connections idle; raise it beyond any time-out that the driver has.
    """

    name: str = "backend"
    url: str | None = None
    leases_url: str | None = None
    cancels_url: str | None = None
    capabilities: frozenset[str] = frozenset()
    short_seconds: float = 0.3
    idle_seconds: float = 1.0
    lease_seconds: float = 0.6

    _numbers: ClassVar[Iterator[int]] = itertools.count(1)

    def __init__(self) -> None:
        self.token: str = secrets.token_hex(6)
        self._backends = AsyncExitStack()
        self._hubs = AsyncExitStack()

    async def connect(self) -> Backend:
        """Open a new, independent connection to the data of this harness. The caller closes it."""
        raise NotImplementedError

    # What cases call.

    async def make(self) -> Backend:
        """Open a new, independent connection to the data of this harness; closed at the end."""
        backend = await self.connect()
        self._backends.push_async_callback(_bounded, backend.aclose)
        return backend

    async def hub(
        self,
        backend: Backend | None = None,
        *,
        store: StreamStore | None = None,
        leases: LeaseManager | None = None,
        cancels: CancelBus | None = None,
        observer: Observer | None = None,
        **settings: Any,
    ) -> Hub:
        """Enter a hub over ``backend`` (None: a new connection), with parts replaced; closed at the end.

        ``settings`` are those of ``HubSettings``; leases and polls are short unless they say otherwise.
        """
        backend = await self.make() if backend is None else backend
        settings.setdefault("lease_seconds", self.ttl_seconds(backend))
        settings.setdefault("poll_seconds", 0.5)
        settings.setdefault("drain_seconds", 2.0)
        hub = Hub(
            store=store or backend.store,
            leases=leases or backend.leases,
            cancels=cancels or backend.cancels,
            settings=HubSettings(**settings),
            observer=observer,
        )
        await hub.__aenter__()
        self._hubs.push_async_callback(_bounded, hub.aclose)
        return hub

    @contextlib.asynccontextmanager
    async def process(self, *, clock_skew_seconds: float = 0.0) -> AsyncGenerator[Peer, None]:
        """Start a second process on the same data; it is killed on exit. See ``Peer`` for what it does.

        Its wall clock, as Python code sees it, is off by ``clock_skew_seconds``.
        """
        self.require("processes")
        assert self.url is not None, "a harness that declares processes has a url"
        peer = await start_peer(
            self.url,
            leases_url=self.leases_url,
            cancels_url=self.cancels_url,
            clock_skew_seconds=clock_skew_seconds,
        )
        try:
            yield peer
        finally:
            await peer.aclose()

    def unique_key(self, label: str = "key") -> str:
        """Return a key no other case uses. Those of one harness begin with ``prefix``."""
        return f"{self.prefix}{label}-{next(self._numbers)}"

    @property
    def prefix(self) -> str:
        """What every key of this harness begins with."""
        return f"{self.token}/"

    def ttl_seconds(self, backend: Backend) -> float:
        """Return a short time-to-live for leases that the backend allows."""
        return max(self.lease_seconds, backend.leases.min_ttl_seconds)

    def require(self, capability: str) -> None:
        """Skip the case, countably, if ``capability`` is not declared."""
        assert capability in CAPABILITIES, f"unknown capability {capability!r}"
        if capability not in self.capabilities:
            pytest.skip(f"{self.name} does not declare {capability}")

    @contextlib.contextmanager
    def skewed_clock(self, seconds: float) -> Generator[None, None, None]:
        """Step the wall clock of this process, as Python code sees it; the server's and the monotonic one stay."""
        wall, wall_ns = time.time, time.time_ns
        step_ns = int(seconds * 1e9)
        with (
            mock.patch("time.time", lambda: wall() + seconds),
            mock.patch("time.time_ns", lambda: wall_ns() + step_ns),
        ):
            yield

    # What a backend's server may allow; declare it in capabilities.

    async def leftovers(self) -> int:
        """Count everything stored for this harness's keys: streams, fences, leases, requests, indexes."""
        self.require("leftovers")
        raise NotImplementedError

    async def wipe(self) -> None:
        """Remove everything stored, without telling any client: no fence stays."""
        self.require("wipe")
        raise NotImplementedError

    def paused(self) -> AbstractAsyncContextManager[None]:
        """Freeze the server inside the block: connections stay up, nothing is answered."""
        self.require("pause")
        raise NotImplementedError

    def down(self) -> AbstractAsyncContextManager[None]:
        """Stop the server inside the block, and start it again, with its data, on exit."""
        self.require("restart")
        raise NotImplementedError

    async def kill_connections(self) -> None:
        """Let the server drop every connection."""
        self.require("kill_connections")
        raise NotImplementedError

    async def kill_notifications(self) -> None:
        """Let the server drop only the connections that carry notifications."""
        self.require("kill_notifications")
        raise NotImplementedError

    async def flush_caches(self) -> None:
        """Let the server forget cached scripts or prepared statements."""
        self.require("flush_caches")
        raise NotImplementedError

    # Lifetime.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the hubs, then the connections. Each must close in bounded time."""
        async with self._backends, self._hubs:
            pass


class UrlHarness(Harness):
    """A harness for any backend with a URL.

    ``{unique}`` in the URL becomes a fresh name for each harness, so that each case has data of its own
    (``sqlite:////tmp/{unique}.db``); without it, cases share the data and differ in their keys. A ``memory://`` URL
    always gets a fresh name.
    """

    def __init__(self, url: str, *, capabilities: frozenset[str] | None = None) -> None:
        super().__init__()
        scheme = url.partition("://")[0]
        if scheme == "memory" and "{unique}" not in url:
            head, mark, query = url.partition("?")
            url = f"{head}{{unique}}{mark}{query}"
        self.name: str = scheme
        self.url: str | None = url.replace("{unique}", self.token)
        if capabilities is None:
            capabilities = frozenset() if scheme == "memory" else frozenset({"processes"})
        self.capabilities: frozenset[str] = capabilities

    def __repr__(self) -> str:
        return f"UrlHarness({redact(self.url or '')!r})"

    async def connect(self) -> Backend:
        """Open a connection to the URL; hub settings in it are ignored."""
        assert self.url is not None
        backend, _ = open_url(self.url)
        await backend.connect()
        return backend


async def _bounded(close: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(CLOSE_SECONDS):
        await close()
