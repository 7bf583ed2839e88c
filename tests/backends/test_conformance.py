"""The conformance suite on the backends that need no server."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from streamhub_memory import MemoryBackend

from streamhub.conformance import ConformanceSuite, UrlHarness
from streamhub.protocols import Backend


class MemoryHarness(UrlHarness):
    """A namespace for each case; it can be emptied and counted, and has no server to stop."""

    def __init__(self) -> None:
        super().__init__("memory://", capabilities=frozenset({"leftovers", "wipe"}))

    async def connect(self) -> Backend:
        self.last = MemoryBackend(self.url or "")
        await self.last.connect()
        return self.last

    async def leftovers(self) -> int:
        return len(self.last.namespace)

    async def wipe(self) -> None:
        self.last.namespace.clear()

    async def aclose(self) -> None:
        await super().aclose()
        MemoryBackend.forget(self.token)


class TestMemory(ConformanceSuite):
    def make_harness(self) -> MemoryHarness:
        return MemoryHarness()


class SqliteHarness(UrlHarness):
    """A file for each case; it can be emptied and counted, and has no server to stop."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"sqlite:///{directory}/{{unique}}.db", capabilities=frozenset({"processes", "leftovers", "wipe"})
        )
        self.path = directory / f"{self.token}.db"

    async def leftovers(self) -> int:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return sum(
                connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in _tables(connection)
            )

    async def wipe(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=10)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for name in _tables(connection):
                connection.execute(f'DELETE FROM "{name}"')
            connection.execute("COMMIT")


def _tables(connection: sqlite3.Connection) -> list[str]:
    # The row about the file itself, and who listens now, are not data.
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [name for (name,) in found if name not in {"file", "listener"}]


class TestSqlite(ConformanceSuite):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self._directory = tmp_path

    def make_harness(self) -> SqliteHarness:
        return SqliteHarness(self._directory)
