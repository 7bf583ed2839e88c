"""The thread that writes: calls that queue up meanwhile share one transaction, and one flush."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from streamhub.errors import StreamHubError
from streamhub_sqlite.clock import HostClock
from streamhub_sqlite.connection import connect_writer, retry_busy, roll_back
from streamhub_sqlite.contents import collect
from streamhub_sqlite.faults import FileIdentity, is_busy, unavailable
from streamhub_sqlite.nudge import Nudger
from streamhub_sqlite.options import SqliteOptions
from streamhub_sqlite.transaction import Outbox, Writing
from streamhub_sqlite.worker import Call, Worker


class Publisher(Protocol):
    """Where the writer tells this process's feeds what it has committed."""

    def publish(self, outbox: Outbox) -> list[Callable[[], None]]:
        """Return what to do in the loop's thread."""
        ...


class Writer(Worker[Writing]):
    """Runs write calls, each atomically, in the order in which they were queued.

    An operation decides first and writes then: a ``StreamHubError`` that it raises before it wrote anything is its
    own affair. Any other error undoes the transaction; its calls are then run again one by one.
    """

    max_group = 128

    def __init__(
        self, path: Path, options: SqliteOptions, clock: HostClock, publisher: Publisher, nudger: Nudger
    ) -> None:
        super().__init__(
            "streamhub-sqlite-writer",
            lambda: connect_writer(path, options, clock),
            busy_seconds=options.busy_seconds,
        )
        self.identity: FileIdentity | None = None
        self.on_commit: Callable[[], None] | None = None
        self._path = path
        self._clock = clock
        self._publisher = publisher
        self._nudger = nudger
        self._garbage = True

    def _serve(self, connection: sqlite3.Connection, calls: list[Call[Writing]]) -> list[Callable[[], None]]:
        try:
            outbox = self._transact(connection, calls)
        except Exception as exc:  # noqa: BLE001 - it is raised where the calls are awaited
            return self._recover(connection, calls, exc)
        if outbox is None:
            return []
        if self.on_commit is not None:
            self.on_commit()
        self._garbage = self._garbage or outbox.garbage
        if outbox.hints or outbox.requests:
            self._nudger.send()
        return self._publisher.publish(outbox)

    def _transact(self, connection: sqlite3.Connection, calls: list[Call[Writing]]) -> Outbox | None:
        """Run the calls in one transaction; None if they wrote nothing."""
        if self.identity is not None:
            self.identity.check()
        retry_busy(lambda: connection.execute("BEGIN IMMEDIATE"), calls[0].deadline)
        try:
            start = connection.total_changes
            writing = Writing(connection, self._clock)
            for call in calls:
                _run(call, writing)
            if connection.total_changes == start:
                roll_back(connection)
                return None
            self._nudger.load(writing)
            writing.save()
            connection.execute("COMMIT")
        except BaseException:
            self._nudger.forget()
            roll_back(connection)
            raise
        return writing.outbox

    def _recover(
        self, connection: sqlite3.Connection, calls: list[Call[Writing]], exc: Exception
    ) -> list[Callable[[], None]]:
        error = unavailable(self._path, exc) if isinstance(exc, sqlite3.Error) else exc
        if len(calls) == 1:
            calls[0].result, calls[0].error = None, error
            return []
        deliveries: list[Callable[[], None]] = []
        late = isinstance(exc, sqlite3.Error) and is_busy(exc)
        for call in calls:
            call.result = call.error = None
            if late and call.deadline <= time.monotonic():
                call.error = error
            else:
                deliveries += self._serve(connection, [call])
        return deliveries

    def _idle(self, connection: sqlite3.Connection) -> float | None:
        if not self._garbage:
            return None
        call = Call(collect, self._loop.create_future(), time.monotonic())
        self._serve(connection, [call])
        self._garbage = bool(call.result)
        return 0.0

    def _run(self, connection: sqlite3.Connection) -> None:
        try:
            super()._run(connection)
        finally:
            self._nudger.close()


def _run(call: Call[Writing], writing: Writing) -> None:
    before = writing.connection.total_changes
    try:
        call.result = call.operation(writing)
    except StreamHubError as exc:
        if writing.connection.total_changes != before:
            raise
        call.error = exc
