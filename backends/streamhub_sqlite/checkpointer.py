"""The thread that copies the log into the file, so that no commit has to wait while it is done.

SQLite would have the commit that makes the log long do it: 20 to 30 ms of flushing, several times a second under load.
Here most of it is done without the write lock, and only what was committed meanwhile with it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from streamhub_sqlite.connection import connect_checkpointer
from streamhub_sqlite.transaction import Reading
from streamhub_sqlite.worker import Call, Worker

# How many commits of this process make a log that is worth copying.
_COMMITS = 500

# Quiet for this long, the log is copied and emptied, however short.
_QUIET_SECONDS = 1.0


class Checkpointer(Worker[Reading]):
    """Copies the log after many commits, and when no more come."""

    def __init__(self, path: Path) -> None:
        super().__init__("streamhub-sqlite-checkpointer", lambda: connect_checkpointer(path), busy_seconds=0)
        self._bell = threading.Event()
        self._awake = False
        self._commits = 0

    def committed(self) -> None:
        """Take note of a commit. From the writing thread only."""
        self._commits += 1
        if not self._awake or self._commits % _COMMITS == 0:
            self._bell.set()

    def stop(self) -> None:
        """Let the thread end. May be repeated."""
        super().stop()
        self._bell.set()

    def _run(self, connection: sqlite3.Connection) -> None:
        while not self._closing:
            self._bell.wait()
            self._awake = True
            while self._awake and not self._closing:
                self._follow(connection)

    def _follow(self, connection: sqlite3.Connection) -> None:
        """Copy the log after many commits, or a quiet moment: then sleep."""
        self._bell.clear()
        seen = self._commits
        if self._bell.wait(_QUIET_SECONDS):
            _checkpoint(connection, "RESTART")
        elif self._commits == seen:
            # From here on a commit rings the bell; one that came just before is seen below.
            self._awake = False
            _checkpoint(connection, "TRUNCATE")
            self._awake = self._commits != seen

    def _serve(self, connection: sqlite3.Connection, calls: list[Call[Reading]]) -> list[Callable[[], None]]:
        return []


def _checkpoint(connection: sqlite3.Connection, mode: str) -> None:
    try:
        # A connection learns that there is a log when it first reads.
        connection.execute("PRAGMA schema_version").fetchall()
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    except sqlite3.Error:
        # Somebody is in the way, or the disk fails: nothing is lost, and a later one does it.
        return
