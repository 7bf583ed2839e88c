"""The backend that the URL scheme ``sqlite`` names."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from streamhub_sqlite.cancels import SqliteCancels
from streamhub_sqlite.clock import HostClock, milliseconds
from streamhub_sqlite.database import Database
from streamhub_sqlite.leases import SqliteLeases
from streamhub_sqlite.options import parse_url
from streamhub_sqlite.store import SqliteStore
from streamhub_sqlite.transaction import Reading, Writing

_DURABILITY = {
    "normal": "a committed append survives the death of any process; a power loss may take the last ones back",
    "full": "a committed append survives a power loss, if the disk keeps its word",
    "extra": "a committed append survives a power loss, if the disk keeps its word",
}


class SqliteBackend:
    """One SQLite file in WAL mode, which the processes of one host share.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, with the options of ``SqliteOptions``.
        clock: the host's clocks; tests give others.

    Raises:
        ConfigError: the URL or an option is wrong.
    """

    def __init__(self, url: str, *, clock: HostClock | None = None) -> None:
        path, options = parse_url(url)
        self._database = Database(path, options, clock or HostClock())
        self._store = SqliteStore(self._database)
        self._leases = SqliteLeases(self._database)
        self._cancels = SqliteCancels(self._database)

    @property
    def store(self) -> SqliteStore:
        """The streams."""
        return self._store

    @property
    def leases(self) -> SqliteLeases:
        """The leases."""
        return self._leases

    @property
    def cancels(self) -> SqliteCancels:
        """The cancel requests."""
        return self._cancels

    async def connect(self) -> None:
        """Open the file, made first if it is not there.

        Raises:
            ConfigError: there can be no such file, or it belongs to something else.
            UnsupportedFormatError: a later release made the file.
            BackendUnavailableError: the file cannot be opened now.
        """
        await self._database.connect()

    async def ping(self) -> None:
        """Read from the file."""
        await self._database.read(lambda reading: reading.now_ms)

    async def about(self) -> Mapping[str, str]:
        """Say what this is, in words."""
        mode = await self._database.read(_journal_mode)
        options = self._database.options
        return {
            "backend": "sqlite",
            "version": f"SQLite {sqlite3.sqlite_version}",
            "path": str(self._database.path),
            "journal_mode": mode,
            "durability": f"synchronous={options.synchronous}: {_DURABILITY[options.synchronous]}",
            "reach": "processes of one host on a local disk; no network file system",
            "limits": f"one append of at most {self._store.max_append_bytes} bytes; one writer at a time",
        }

    async def advance(self, seconds: float) -> None:
        """Move the file's clock forward, for every connection to it. For tests: it cannot be moved back."""

        def operation(writing: Writing) -> None:
            writing.file.offset_ms += milliseconds(seconds)
            writing.write("UPDATE file SET offset_ms = ?", (writing.file.offset_ms,))

        await self._database.write(operation)

    async def aclose(self) -> None:
        """Close the file and end the threads; harmless when repeated."""
        await self._database.aclose()


def _journal_mode(reading: Reading) -> str:
    return str(reading.row("PRAGMA journal_mode")[0])
