"""One transaction: what an operation reads and writes with, and the time it happens at."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from streamhub.errors import BackendUnavailableError
from streamhub.types import Append, CancelRequest
from streamhub_sqlite.clock import HostClock
from streamhub_sqlite.queries import load

_SQL = load("file.sql")
_LOAD, _SAVE = _SQL["load"], _SQL["save"]

# How many rows one INSERT carries. Each number is a statement of its own, and all of them stay prepared; SQLite before
# 3.32 takes 999 values in a statement.
_MOST_ROWS = 64


@dataclass(slots=True)
class FileState:
    """The row of table ``file``."""

    changed: int
    requested: int
    listeners: int
    generation: int
    boot: str
    offset_ms: int
    seen_ms: int

    def now_ms(self, clock: HostClock) -> int:
        """Return the file's time."""
        if self.boot == clock.boot:
            return clock.steady_ms() + self.offset_ms
        return max(clock.wall_ms(), self.seen_ms)


_values_of = attrgetter(*(each.name for each in fields(FileState)))


@cache
def _insertion(head: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{head} VALUES {', '.join([row] * rows)}"


def load_file(connection: sqlite3.Connection) -> FileState:
    """Read the row of table ``file``."""
    row = connection.execute(_LOAD).fetchone()
    if row is None:
        raise BackendUnavailableError("the sqlite file was emptied: table 'file' has lost its row")
    return FileState(*row)


class Hint(NamedTuple):
    """A change that this transaction makes, for the feeds of this process; ``changed`` is its sequence number."""

    key: str
    changed: int
    append: Append | None = None


class Reading:
    """A read transaction: everything it reads is of one moment."""

    __slots__ = ("connection", "file", "now_ms")

    def __init__(self, connection: sqlite3.Connection, clock: HostClock) -> None:
        self.connection = connection
        self.file = load_file(connection)
        self.now_ms = self.file.now_ms(clock)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query."""
        return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the first row of a query, or None. For queries of at most one row."""
        return self.connection.execute(sql, parameters).fetchone()


@dataclass(slots=True)
class Outbox:
    """What is told to others once a transaction is committed."""

    hints: list[Hint] = field(default_factory=list[Hint])
    requests: list[CancelRequest] = field(default_factory=list[CancelRequest])
    garbage: bool = False


class Writing(Reading):
    """A write transaction. It holds the write lock, so what it reads stays true until it commits."""

    __slots__ = ("_loaded", "outbox")

    def __init__(self, connection: sqlite3.Connection, clock: HostClock) -> None:
        super().__init__(connection, clock)
        if self.file.boot != clock.boot:
            self.file.boot = clock.boot
            self.file.offset_ms = self.now_ms - clock.steady_ms()
        self.outbox = Outbox()

    def change(self) -> int:
        """Return the next sequence number. Write transactions are serial, so numbers are in commit order."""
        self.file.changed += 1
        return self.file.changed

    def write(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement and return how many rows it changed."""
        return self.connection.execute(sql, parameters).rowcount

    def write_many(self, head: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows with as few statements as possible: each may cost this thread its turn to run."""
        for at in range(0, len(rows), _MOST_ROWS):
            some = rows[at : at + _MOST_ROWS]
            sql = _insertion(head, len(some[0]), len(some))
            self.connection.execute(sql, [value for row in some for value in row])

    def save(self) -> None:
        """Write the row of table ``file`` back; the last step before the commit."""
        self.file.seen_ms = self.now_ms
        self.connection.execute(_SAVE, _values_of(self.file))
