"""The package's SQL, read from its ``.sql`` files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

_NAME = "-- name: "


def _read(file: str) -> str:
    return files("streamhub_sqlite").joinpath("sql", file).read_text(encoding="utf-8")


def load(file: str) -> dict[str, str]:
    """Return the statements of a file, by the names in its ``-- name:`` lines; other comments are left out."""
    queries: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in _read(file).splitlines():
        if line.startswith(_NAME):
            lines = queries[line.removeprefix(_NAME).strip()] = []
        elif not line.lstrip().startswith("--"):
            lines.append(line)
    return {name: "\n".join(lines).strip().rstrip(";") for name, lines in queries.items()}


def script(file: str) -> Iterator[str]:
    """Yield the statements of a file one by one (``executescript`` would commit first)."""
    statement = ""
    for line in _read(file).splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
