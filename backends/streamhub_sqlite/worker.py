"""A thread that owns a connection and runs what tasks ask of it, one call after another.

A task awaits a future and never holds the connection: a task that is cancelled abandons the future, and its call
runs to its end.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from streamhub.errors import BackendUnavailableError, HubClosedError

T = TypeVar("T")
C = TypeVar("C")


@dataclass(slots=True, eq=False)
class Call(Generic[C]):
    """One operation asked for, and what came of it."""

    operation: Callable[[C], Any]
    future: asyncio.Future[Any]
    deadline: float
    result: Any = None
    error: BaseException | None = None


def settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Complete a future, unless its task has left it. In the loop's thread."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class Worker(ABC, Generic[C]):
    """A thread with a queue of calls; ``C`` is what it gives to an operation."""

    max_group = 1
    """The most calls that are served, and answered, together."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection], *, busy_seconds: float) -> None:
        self._connect = connect
        self._busy_seconds = busy_seconds
        self._queue: SimpleQueue[Call[C] | None] = SimpleQueue()
        # A daemon: a hub that is never closed must not keep its process alive.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        # Set by the thread, before it tells anybody.
        self.ended = False
        self.connection: sqlite3.Connection | None = None

    async def start(self) -> None:
        """Start the thread, if that was not done, and return once its connection is open; raise what opening raises."""
        if self._thread.ident is None:
            self._thread.start()
        await asyncio.shield(self._opened)

    async def submit(self, operation: Callable[[C], T]) -> T:
        """Run an operation in the thread and return its result."""
        future: asyncio.Future[T] = self._loop.create_future()
        self.post(operation, future)
        return await future

    def post(
        self, operation: Callable[[C], Any], future: asyncio.Future[Any], *, busy_seconds: float | None = None
    ) -> None:
        """Queue an operation whose outcome goes to ``future``. In the loop's thread."""
        if self._closing:
            raise HubClosedError("the sqlite backend is closed")
        seconds = self._busy_seconds if busy_seconds is None else busy_seconds
        self._queue.put(Call(operation, future, time.monotonic() + seconds))
        if self.ended:
            # The thread may have missed it.
            self._fail_rest()

    def stop(self) -> None:
        """Let the thread finish the calls that are queued, and then end. May be repeated."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)

    async def join(self) -> None:
        """Wait until the thread has ended. May be repeated."""
        if self._thread.ident is not None:
            await asyncio.shield(self._finished)
            self._thread.join()

    @abstractmethod
    def _serve(self, connection: sqlite3.Connection, calls: list[Call[C]]) -> list[Callable[[], None]]:
        """Run some calls, in the thread; set each one's result or error. Return what else to do in the loop's."""

    def _idle(self, connection: sqlite3.Connection) -> float | None:
        """Use a quiet moment, in the thread; return after how many seconds of quiet to do it again."""
        return None

    def _leave(self, connection: sqlite3.Connection) -> None:
        """Do what is to be done before the connection is closed. In the thread."""

    def _tell(self, calls: Iterable[Callable[[], None]]) -> None:
        """Run functions in the loop's thread, in order."""
        todo = list(calls)

        def run() -> None:
            for call in todo:
                call()

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError:
            # The loop is closed: nobody is waiting any more.
            return

    def _main(self) -> None:
        try:
            self.connection = self._connect()
        except BaseException as exc:  # noqa: BLE001 - it is raised in start()
            error = exc
            self.ended = True
            self._tell([lambda: settle(self._opened, None, error), lambda: settle(self._finished, None, None)])
            return
        self._tell([lambda: settle(self._opened, None, None)])
        try:
            self._run(self.connection)
        finally:
            connection, self.connection = self.connection, None
            connection.close()
            self.ended = True
            self._fail_rest()
            self._tell([lambda: settle(self._finished, None, None)])

    def _run(self, connection: sqlite3.Connection) -> None:
        quiet: float | None = None
        while True:
            calls, closing = self._take(quiet)
            if calls:
                deliveries = self._serve(connection, calls)
                self._tell([partial(_settle_all, calls), *deliveries])
                quiet = 0.0
            elif not closing:
                quiet = self._idle(connection)
            if closing:
                self._leave(connection)
                return

    def _take(self, timeout: float | None) -> tuple[list[Call[C]], bool]:
        """Return the calls that are queued, waiting for the first; and whether the thread is to end."""
        calls: list[Call[C]] = []
        try:
            call = self._queue.get_nowait() if timeout == 0 else self._queue.get(timeout=timeout)
            while call is not None:
                calls.append(call)
                if len(calls) == self.max_group:
                    return calls, False
                call = self._queue.get_nowait()
        except Empty:
            return calls, False
        return calls, True

    def _fail_rest(self) -> None:
        rest: list[Call[C]] = []
        while not self._queue.empty():
            call = self._queue.get_nowait()
            if call is not None:
                call.error = BackendUnavailableError("the sqlite backend's thread has ended")
                rest.append(call)
        self._tell([partial(_settle_all, rest)])


def _settle_all(calls: Iterable[Call[Any]]) -> None:
    for call in calls:
        settle(call.future, call.result, call.error)
