"""The thread that watches the file for what other processes commit."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from streamhub.errors import StreamHubError
from streamhub_sqlite.clock import HostClock
from streamhub_sqlite.connection import connect_reader, retry_busy, roll_back
from streamhub_sqlite.faults import FileIdentity, is_busy, unavailable
from streamhub_sqlite.feeds import Feeds
from streamhub_sqlite.nudge import BEAT_SECONDS, Ear, open_ear
from streamhub_sqlite.options import SqliteOptions
from streamhub_sqlite.transaction import Reading, load_file
from streamhub_sqlite.worker import Call, Worker


class Watcher(Worker[Reading]):
    """Waits at an ear, and tells the feeds what was committed since it last looked."""

    def __init__(
        self,
        path: Path,
        options: SqliteOptions,
        clock: HostClock,
        *,
        identity: FileIdentity,
        feeds: Feeds,
        beat: Callable[[], None],
    ) -> None:
        super().__init__("streamhub-sqlite-watcher", self._open, busy_seconds=options.busy_seconds)
        self._path = path
        self._poll_seconds = options.nudge_poll_seconds
        self._clock = clock
        self._identity = identity
        self._feeds = feeds
        self._ear: Ear | None = None
        self._nudge = options.nudge
        self._beat = beat
        self._cursor = 0

    @property
    def port(self) -> int | None:
        """Where it can be nudged, if it can."""
        return None if self._ear is None else self._ear.port

    def stop(self) -> None:
        """Let the thread end. May be repeated."""
        super().stop()
        if self._ear is not None:
            self._ear.wake()

    def _open(self) -> sqlite3.Connection:
        self._identity.check()
        connection = connect_reader(self._path)
        try:
            deadline = time.monotonic() + self._busy_seconds
            self._cursor = retry_busy(lambda: load_file(connection), deadline).changed
        except BaseException:
            connection.close()
            raise
        self._ear = open_ear(nudge=self._nudge)
        return connection

    def _run(self, connection: sqlite3.Connection) -> None:
        ear = cast("Ear", self._ear)
        try:
            self._watch(connection, ear)
        except (sqlite3.Error, StreamHubError) as exc:
            error = unavailable(self._path, exc) if isinstance(exc, sqlite3.Error) else exc
            # First of all: no feed may be added that nobody will tell.
            self.ended = True
            self._tell([partial(self._feeds.fail, error)])
        finally:
            ear.close()

    def _watch(self, connection: sqlite3.Connection, ear: Ear) -> None:
        beat_at = time.monotonic() + BEAT_SECONDS
        while not self._closing:
            ear.wait(self._poll_seconds * random.uniform(0.8, 1.2))
            self._identity.check()
            self._look(connection)
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + BEAT_SECONDS
                self._tell([self._beat])

    def _look(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("BEGIN")
            reading = Reading(connection, self._clock)
            while reading.file.changed > self._cursor:
                self._cursor, deliveries = self._feeds.catch_up(reading, self._cursor)
                self._tell(deliveries)
        except sqlite3.OperationalError as exc:
            # Another process recovers the log: look again at the next poll.
            if not is_busy(exc):
                raise
        finally:
            roll_back(connection)

    def _serve(self, connection: sqlite3.Connection, calls: list[Call[Reading]]) -> list[Callable[[], None]]:
        return []
