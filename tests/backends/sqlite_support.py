"""What the tests of ``sqlite://`` share: connections that are closed, runs that are opened, and clocks that obey."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from streamhub_sqlite import SqliteBackend
from streamhub_sqlite.clock import HostClock

from streamhub.types import Append, End, Retention, StreamInfo

Connect = Callable[..., Awaitable[SqliteBackend]]

RETENTION = Retention()
_nonces = itertools.count(1)


class TestClock(HostClock):
    """A host whose clocks and boots are moved by hand."""

    __test__ = False

    def __init__(self, *, boot: str = "first boot", steady_ms: int = 50_000, wall_ms: int = 1_700_000_000_000) -> None:
        self.boot = boot
        self.steady = steady_ms
        self.wall = wall_ms

    def steady_ms(self) -> int:
        return self.steady

    def wall_ms(self) -> int:
        return self.wall


@contextlib.asynccontextmanager
async def connections(path: Path) -> AsyncIterator[Connect]:
    """Yield a function that connects to ``path`` with options; what it connected is closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(options: str = "", clock: HostClock | None = None) -> SqliteBackend:
            backend = SqliteBackend(f"sqlite:///{path}{options and '?'}{options}", clock=clock)
            await backend.connect()
            stack.push_async_callback(backend.aclose)
            return backend

        yield connect


async def open_run(backend: SqliteBackend, key: str = "k", *, run: str = "r", **options: Any) -> StreamInfo:
    """Acquire and open, on what is stored; the owner is the run's name."""
    (found,) = await backend.store.describe([key])
    above = 0 if found is None else found.generation
    lease = await backend.leases.acquire(key, owner=run, run=run, ttl_seconds=15, above=above, void=above)
    options.setdefault("retention", RETENTION)
    return await backend.store.open(
        key,
        lease.generation,
        owner=run,
        run=run,
        expect=None if found is None else found.seen,
        resume=options.pop("resume", False),
        **options,
    )


def append_of(info: StreamInfo, first: int, *chunks: bytes, end: End | None = None, **options: Any) -> Append:
    """Return an append with a nonce of its own."""
    return Append(info.key, info.generation, first, chunks, b"nonce %d" % next(_nonces), end=end, **options)


def query(path: Path, sql: str, *parameters: object) -> list[Any]:
    """Look into the file behind the backend's back, or change it."""
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        return connection.execute(sql, parameters).fetchall()
