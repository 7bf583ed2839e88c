"""The thread that reads: each call is one short read transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from streamhub_sqlite.clock import HostClock
from streamhub_sqlite.connection import connect_reader, retry_busy, roll_back
from streamhub_sqlite.faults import FileIdentity, unavailable
from streamhub_sqlite.transaction import Reading
from streamhub_sqlite.worker import Call, Worker


class Reader(Worker[Reading]):
    """Runs read calls one by one, so that no answer waits for another's."""

    def __init__(self, path: Path, identity: FileIdentity, clock: HostClock, *, busy_seconds: float) -> None:
        super().__init__("streamhub-sqlite-reader", lambda: connect_reader(path), busy_seconds=busy_seconds)
        self._path = path
        self._identity = identity
        self._clock = clock

    def _serve(self, connection: sqlite3.Connection, calls: list[Call[Reading]]) -> list[Callable[[], None]]:
        for call in calls:
            try:
                self._identity.check()
                # Reading can be refused for a moment too: while another process recovers the log.
                call.result = retry_busy(lambda call=call: self._read(connection, call), call.deadline)
            except sqlite3.Error as exc:
                call.error = unavailable(self._path, exc)
            except Exception as exc:  # noqa: BLE001 - it is raised where the call is awaited
                call.error = exc
        return []

    def _read(self, connection: sqlite3.Connection, call: Call[Reading]) -> object:
        connection.execute("BEGIN")
        try:
            return call.operation(Reading(connection, self._clock))
        finally:
            roll_back(connection)
