"""One open file: the threads that write, read, watch and tidy it, and who may ask them."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from streamhub.errors import BackendUnavailableError, HubClosedError, HubContextError
from streamhub_sqlite import forks, nudge
from streamhub_sqlite.checkpointer import Checkpointer
from streamhub_sqlite.clock import HostClock
from streamhub_sqlite.faults import FileIdentity, check_place, map_errors
from streamhub_sqlite.feeds import Feeds, SqliteChangeFeed, SqliteRequestFeed
from streamhub_sqlite.nudge import Nudger
from streamhub_sqlite.options import SqliteOptions
from streamhub_sqlite.reader import Reader
from streamhub_sqlite.transaction import Reading, Writing
from streamhub_sqlite.watcher import Watcher
from streamhub_sqlite.worker import Worker
from streamhub_sqlite.writer import Writer

T = TypeVar("T")


class Database:
    """A file that one event loop of one process has open."""

    def __init__(self, path: Path, options: SqliteOptions, clock: HostClock) -> None:
        self.path = path
        self.options = options
        self.clock = clock
        self._feeds = Feeds()
        self._token = secrets.token_hex(8)
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._watcher: Watcher | None = None
        self._checkpointer: Checkpointer | None = None
        self._watching = asyncio.Lock()
        self._port: int | None = None
        self._ready = False

    async def connect(self) -> None:
        """Open the file, made first if it is not there; see ``Backend.connect``."""
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        check_place(self.path)
        forks.remember(self)
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        self._ready = True

    async def _start(self) -> None:
        nudger = Nudger(self._token, nudge=self.options.nudge)
        self._writer = Writer(self.path, self.options, self.clock, self._feeds, nudger)
        with map_errors(self.path):
            await self._writer.start()
            identity = self._writer.identity = FileIdentity(self.path)
            identity.check()
            self._reader = Reader(self.path, identity, self.clock, busy_seconds=self.options.busy_seconds)
            await self._reader.start()
            self._checkpointer = Checkpointer(self.path)
            await self._checkpointer.start()
            self._writer.on_commit = self._checkpointer.committed

    def check(self) -> None:
        """Raise unless the file is open, and this is the process and the loop that opened it."""
        if os.getpid() != self._pid:
            raise HubContextError("a sqlite backend was used after a fork: open one in each process")
        if not self._ready:
            raise HubClosedError("the sqlite backend is not open")
        if asyncio.get_running_loop() is not self._loop:
            raise HubContextError("a sqlite backend was used from another event loop: open one in each loop")

    async def write(self, operation: Callable[[Writing], T]) -> T:
        """Run an operation in a write transaction; committed on return. Cancelled, it may still happen."""
        self.check()
        return await _live(self._writer).submit(operation)

    async def read(self, operation: Callable[[Reading], T]) -> T:
        """Run an operation in a read transaction."""
        self.check()
        return await _live(self._reader).submit(operation)

    @asynccontextmanager
    async def follow_changes(self) -> AsyncGenerator[SqliteChangeFeed]:
        """Open a feed of changes."""
        await self._watch()
        feed = SqliteChangeFeed()
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.remove(feed)

    @asynccontextmanager
    async def follow_requests(self) -> AsyncGenerator[SqliteRequestFeed]:
        """Open a feed of cancel requests."""
        await self._watch()
        feed = SqliteRequestFeed()
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.remove(feed)

    async def _watch(self) -> None:
        """Have the watching thread run; it stays until the file is closed, or fails all feeds when it must end."""
        self.check()
        async with self._watching:
            if self._watcher is None or self._watcher.ended:
                identity = _live(_live(self._writer).identity)
                self._watcher = Watcher(
                    self.path, self.options, self.clock, identity=identity, feeds=self._feeds, beat=self._beat
                )
            with map_errors(self.path):
                await self._watcher.start()
            port = self._watcher.port
            if port is not None and port != self._port:
                await self.write(lambda writing: nudge.register(writing, self._token, port))
            self._port = port

    def _beat(self) -> None:
        """Say again where this process listens. In the loop's thread."""
        port = self._port
        if self._ready and port is not None:
            self._post(lambda writing: nudge.register(writing, self._token, port))

    def _post(self, operation: Callable[[Writing], Any]) -> None:
        """Run a write operation that nobody waits for: if it fails, it is made up for later."""
        future: asyncio.Future[Any] = _live(self._loop).create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        with suppress(HubClosedError):
            _live(self._writer).post(operation, future, busy_seconds=1.0)

    async def aclose(self) -> None:
        """Close the file; see ``Backend.aclose``."""
        if self._ready:
            self.check()
            self._ready = False
            self._feeds.fail(BackendUnavailableError("the sqlite backend was closed"))
            if self._port is not None:
                self._post(lambda writing: nudge.unregister(writing, self._token))
        await self._stop()

    async def _stop(self) -> None:
        # All are told before any is waited for: if waiting is cancelled, they end nevertheless.
        workers = self._workers()
        for worker in workers:
            worker.stop()
        for worker in workers:
            await worker.join()

    def _workers(self) -> list[Worker[Any]]:
        workers = (self._watcher, self._reader, self._checkpointer, self._writer)
        return [worker for worker in workers if worker is not None]

    def connections(self) -> Iterable[sqlite3.Connection]:
        """Return the connections that are open; for a forked child, which must leave them alone."""
        return [worker.connection for worker in self._workers() if worker.connection is not None]


def _live(part: T | None) -> T:
    if part is None:
        raise HubClosedError("the sqlite backend is not open")
    return part
