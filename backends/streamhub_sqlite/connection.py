"""Connections to the file, and the file's creation."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from streamhub.errors import ConfigError, UnsupportedFormatError
from streamhub_sqlite.clock import HostClock
from streamhub_sqlite.faults import is_busy, primary_code
from streamhub_sqlite.options import SqliteOptions
from streamhub_sqlite.queries import load, script
from streamhub_sqlite.transaction import FileState, Writing, load_file

FORMAT = 1
"""The version of the schema, in ``PRAGMA user_version``."""

APPLICATION_ID = 0x73746862  # "sthb"
OLDEST_SQLITE = (3, 24, 0)

# A log of so many pages is copied by the commit that makes it; checkpointer.py does so much earlier, if it can.
_LOG_PAGES = 16_000
_CACHE = "cache_size = -8192"

_JSON = "SELECT json_group_array(value) FROM json_each('[]')"

T = TypeVar("T")
_SQL = load("file.sql")


def retry_busy(action: Callable[[], T], deadline: float) -> T:
    """Call ``action`` until no other connection is in its way.

    SQLite's own busy handler sleeps up to 100 ms at a time and starves; short random pauses are fairer.
    """
    while True:
        try:
            return action()
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.0002, 0.005))


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open an existing file for reading."""
    connection = _connect(path, "rw")
    connection.execute("PRAGMA query_only = ON")
    return connection


def connect_checkpointer(path: Path) -> sqlite3.Connection:
    """Open an existing file for copying its log. It waits for a moment for others, who wait for it in turn."""
    connection = _connect(path, "rw")
    connection.execute("PRAGMA busy_timeout = 20")
    return connection


def connect_writer(path: Path, options: SqliteOptions, clock: HostClock) -> sqlite3.Connection:
    """Open the file for writing; create it, or its schema, if it is not there. Many processes may do so at once.

    Raises:
        ConfigError: the file belongs to something else, or cannot be shared.
        UnsupportedFormatError: a later release made it.
    """
    deadline = time.monotonic() + options.busy_seconds
    connection = _connect(path, "rwc")
    try:
        known = retry_busy(lambda: _look(connection, path), deadline)
        mode = retry_busy(lambda: _pragma(connection, "journal_mode = WAL"), deadline)
        if mode != "wal":
            raise ConfigError(f"sqlite file {str(path)!r} cannot use a write-ahead log (it has {mode!r})")
        for setting in (f"synchronous = {options.synchronous}", f"wal_autocheckpoint = {_LOG_PAGES}", _CACHE):
            retry_busy(partial(connection.execute, f"PRAGMA {setting}"), deadline)
        retry_busy(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
        try:
            if not known and not _is_known(connection, path):
                _create(connection, clock)
            _settle(connection, clock)
        except BaseException:
            roll_back(connection)
            raise
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def roll_back(connection: sqlite3.Connection) -> None:
    """Leave the transaction, unless SQLite has done so (a full disk does that)."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _check_library() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigError(f"sqlite {sqlite3.sqlite_version} is too old: use {oldest} or later")
    # Asked of no file: preparing a statement reads the schema, which may be locked.
    with closing(sqlite3.connect(":memory:")) as nothing:
        try:
            nothing.execute(_JSON)
        except sqlite3.OperationalError as exc:
            raise ConfigError(f"sqlite {sqlite3.sqlite_version} was built without JSON: use 3.38 or later") from exc


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    _check_library()
    # busy_timeout is 0: every wait is retry_busy's. Transactions are begun by hand, never by the driver.
    uri = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, cached_statements=256)


def _pragma(connection: sqlite3.Connection, name: str) -> int | str:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _look(connection: sqlite3.Connection, path: Path) -> bool:
    """As ``_is_known``, in a transaction of its own: another process may be creating the schema."""
    connection.execute("BEGIN")
    try:
        return _is_known(connection, path)
    finally:
        roll_back(connection)


def _is_known(connection: sqlite3.Connection, path: Path) -> bool:
    """Say whether the file has our schema (True) or none at all (False)."""
    try:
        version, application = _pragma(connection, "user_version"), _pragma(connection, "application_id")
    except sqlite3.DatabaseError as exc:
        if primary_code(exc) != sqlite3.SQLITE_NOTADB:
            raise
        raise ConfigError(f"file {str(path)!r} is not a SQLite database: name another file") from exc
    if application == APPLICATION_ID:
        if version != FORMAT:
            raise UnsupportedFormatError(f"sqlite file {str(path)!r}", found=version, known=FORMAT)
        return True
    if version or application or _pragma(connection, "schema_version"):
        raise ConfigError(f"sqlite file {str(path)!r} belongs to another application: name another file")
    return False


def _create(connection: sqlite3.Connection, clock: HostClock) -> None:
    for statement in script("schema.sql"):
        connection.execute(statement)
    # Generations begin at the wall clock, so that a file made anew does not give again what the last one gave.
    now_ms = clock.wall_ms()
    state = FileState(0, 0, 0, now_ms, clock.boot, now_ms - clock.steady_ms(), now_ms)
    connection.execute(_SQL["create"], astuple(state))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _settle(connection: sqlite3.Connection, clock: HostClock) -> None:
    """Begin a new boot's time, if the host has booted since the file was last used."""
    if load_file(connection).boot != clock.boot:
        writing = Writing(connection, clock)
        writing.write(_SQL["free"])
        writing.save()
