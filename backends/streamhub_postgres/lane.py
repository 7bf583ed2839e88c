"""One connection that many tasks share: a task of its own runs what they ask for, one job after the other.

A caller that is cancelled leaves its job to itself: it is run, or not, and its result dropped. No caller ever owns the
connection, so none can leave it in the middle of an answer, and a commit that is under way is not cut off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from streamhub.errors import BackendUnavailableError, HubClosedError, StreamHubError
from streamhub_postgres.faults import convert, is_fatal, is_forgotten, is_full, is_undone, is_unsent
from streamhub_postgres.wire import Wire

T = TypeVar("T")

Job = Callable[[Wire], Awaitable[T]]
"""Some statements. It may be run again from its beginning, so each of them must bear repetition."""

# How often a job is run at once that the server undid, whose statements it forgot, or whose connection was gone.
_ATTEMPTS = 5

# How long a task may take to notice that its connection has ended; one that still connects is cancelled.
_END_SECONDS = 0.2


class Lane:
    """Keeps one connection, opened when it is needed, and runs jobs on it."""

    def __init__(self, dial: Callable[[], Awaitable[Wire]], *, name: str, where: str) -> None:
        """Begin without a connection.

        Args:
            dial: opens one; raises the driver's errors.
            name: of the task.
            where: what messages call the server.
        """
        self.dialled: int = 0  # how often it has connected
        self._dial = dial
        self._name = name
        self._where = where
        self._urgent: deque[tuple[Job[Any], asyncio.Future[Any]]] = deque()
        self._waiting: deque[tuple[Job[Any], asyncio.Future[Any]]] = deque()
        self._running: asyncio.Future[Any] | None = None
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def reopen(self) -> None:
        """Take jobs again after ``aclose``."""
        self._closed = False

    async def run(self, job: Job[T], *, urgent: bool = False) -> T:
        """Run a job and return its result; an urgent one goes before those that are not.

        Raises:
            BackendUnavailableError: the connection broke, or could not be made; the job may have been done.
            ConfigError: the server refuses credentials or rights.
        """
        if self._closed:
            raise HubClosedError("the postgresql backend is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._waiting).append((job, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name=self._name)
        return await future

    async def _serve(self) -> None:
        while self._urgent or self._waiting:
            job, future = (self._urgent or self._waiting).popleft()
            if future.cancelled():
                continue
            self._running = future
            try:
                result = await self._attempt(job)
            except Exception as exc:  # noqa: BLE001 - converted, for the caller
                if not future.done():
                    future.set_exception(convert(self._where, exc))
            else:
                if not future.done():
                    future.set_result(result)
            self._running = None

    async def _attempt(self, job: Job[Any]) -> Any:
        for left in reversed(range(_ATTEMPTS)):
            wire = await self._connected()
            try:
                return await job(wire)
            except BaseException as exc:
                if is_fatal(exc) or not isinstance(exc, Exception):
                    self._drop()
                if is_full(exc):
                    # Nothing else makes the server look whether whoever was in the way has gone.
                    await wire.fetch("SELECT pg_notification_queue_usage()")
                if is_forgotten(exc):
                    wire.forget()
                elif not is_undone(exc) and not is_unsent(exc):
                    raise
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _connected(self) -> Wire:
        if self._wire is not None and self._wire.closed:
            self._drop()
        if self._wire is None:
            try:
                self._wire = await self._dial()
            except Exception as exc:
                self._give_up(convert(self._where, exc))
                raise
            self.dialled += 1
        return self._wire

    def _give_up(self, error: StreamHubError) -> None:
        """Tell all who wait: each for himself would find out one after the other."""
        if isinstance(error, BackendUnavailableError):
            for future in self._give_back():
                future.set_exception(BackendUnavailableError(*error.args))

    def _give_back(self) -> list[asyncio.Future[Any]]:
        waiting = [future for _, future in (*self._urgent, *self._waiting) if not future.done()]
        self._urgent.clear()
        self._waiting.clear()
        return waiting

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.drop()

    async def aclose(self) -> None:
        """Close the connection; callers that wait raise ``HubClosedError``."""
        self._closed = True
        for future in filter(None, [self._running, *self._give_back()]):
            if not future.done():
                future.set_exception(HubClosedError("the postgresql backend was closed"))
        if self._task is not None and not self._task.done():
            # What runs fails with its connection: the driver would answer a cancellation with one more connection.
            self._drop()
            await asyncio.wait([self._task], timeout=_END_SECONDS)
            self._task.cancel()
            await asyncio.wait([self._task])
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.aclose()
