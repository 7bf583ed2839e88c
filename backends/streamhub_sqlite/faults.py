"""What can go wrong with a file, said in streamhub's errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from streamhub.errors import BackendUnavailableError, ConfigError

_ADVICE = {
    sqlite3.SQLITE_FULL: ": free some space",
    sqlite3.SQLITE_READONLY: ": make the file and its directory writable",
    sqlite3.SQLITE_CORRUPT: ": restore the file from a backup",
    sqlite3.SQLITE_NOTADB: ": the file is not a SQLite database, or is damaged",
}


def primary_code(exc: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; 0 if the error is Python's own."""
    return (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF


def is_busy(exc: sqlite3.Error) -> bool:
    """Say whether another connection is in the way for a moment."""
    return primary_code(exc) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def unavailable(path: Path, exc: sqlite3.Error) -> BackendUnavailableError:
    """Convert a driver's error."""
    if is_busy(exc):
        text = f"sqlite file {str(path)!r} stayed locked by another process ({exc}): look for a long transaction"
    else:
        text = f"sqlite file {str(path)!r}: {exc}{_ADVICE.get(primary_code(exc), '')}"
    error = BackendUnavailableError(text)
    error.__cause__ = exc
    return error


@contextmanager
def map_errors(path: Path) -> Generator[None]:
    """Convert the driver's errors; no other error is touched."""
    try:
        yield
    except sqlite3.Error as exc:
        raise unavailable(path, exc) from exc


def check_place(path: Path) -> None:
    """Refuse a path at which no database can be, before SQLite says so less clearly.

    Raises:
        ConfigError: the directory is missing or not writable, or the path is not that of a writable file.
    """
    try:
        _check_place(path)
    except OSError as exc:
        raise ConfigError(f"{str(path)!r} cannot be a file ({exc.strerror}): use another path") from exc


def _check_place(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise ConfigError(f"directory {str(folder)!r} does not exist: create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"directory {str(folder)!r} is not writable: sqlite keeps its log beside the file")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{str(path)!r} is not a file: name a file")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise ConfigError(f"file {str(path)!r} is not readable and writable: change its permissions")


class FileIdentity:
    """Which file it is that was opened at a path: SQLite itself would go on with one that is there no more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = str(path)
        self._known = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._text)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def check(self) -> None:
        """Raise ``BackendUnavailableError`` if another file, or none, is at the path now."""
        if self._known is None or self._look() != self._known:
            raise BackendUnavailableError(
                f"sqlite file {self._text!r} was replaced or removed: restart the processes that use it"
            )
