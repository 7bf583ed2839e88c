"""One stream as its rows hold it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import NamedTuple

from streamhub.errors import UnsupportedFormatError
from streamhub.records import decode_end, decode_retention, decode_spans
from streamhub.types import Metadata, Retention, Span, StreamInfo, StreamState
from streamhub_sqlite.clock import milliseconds
from streamhub_sqlite.queries import load
from streamhub_sqlite.transaction import Reading

FORMAT = 1
"""The version of what is encoded in a row of table ``stream``."""

_SQL = load("stream.sql")


class Row(NamedTuple):
    """A row of table ``stream`` with its row of table ``tail``."""

    id: int
    key: str
    format: int
    generation: int
    owner: str
    run: str
    attended: int
    state: StreamState
    spans: str
    end: str | None
    end_nonce: bytes | None
    metadata: str
    retention: str
    content: int | None
    due_ms: int
    first: int
    tail: int
    size_bytes: int
    expires_ms: int


@lru_cache(maxsize=256)
def retention_of(text: str) -> Retention:
    """Read a retention; few different ones are in use at a time."""
    return decode_retention(text)


@lru_cache(maxsize=1024)
def _spans_of(text: str) -> tuple[Span, ...]:
    return decode_spans(text)


def fence_ends_ms(expires_ms: int, retention: Retention) -> int:
    """Return when the fence of a stream falls that was deleted, or expired, at ``expires_ms``."""
    return expires_ms + milliseconds(retention.fence_seconds)


def state_of(state: StreamState, expires_ms: int, retention: str, now_ms: int) -> StreamState | None:
    """Return what a stream counts as now; None once its fence has fallen."""
    if expires_ms > now_ms:
        return state
    if fence_ends_ms(expires_ms, retention_of(retention)) <= now_ms:
        return None
    return "deleted" if state == "deleted" else "expired"


def find(reading: Reading, key: str) -> Row | None:
    """Read one stream's row."""
    found = reading.row(_SQL["find"], (key,))
    return None if found is None else Row._make(found)


def find_many(reading: Reading, keys: list[str]) -> dict[str, Row]:
    """Read the rows of many streams at once, without their metadata."""
    if len(keys) == 1:
        row = find(reading, keys[0])
        return {} if row is None else {row.key: row}
    text = reading.row(_SQL["find_many"], (json.dumps(keys, ensure_ascii=False),))[0]
    rows = map(Row._make, json.loads(text))
    return {row.key: row if row.end is None else row._replace(end_nonce=_nonce(row)) for row in rows}


def _nonce(row: Row) -> bytes:
    return bytes.fromhex(str(row.end_nonce))


def info_of(row: Row | None, now_ms: int) -> StreamInfo | None:
    """Describe a stream or fence; None if there is nothing, or no more.

    Raises:
        UnsupportedFormatError: the row was written by a later release.
    """
    if row is None:
        return None
    if row.format != FORMAT:
        raise UnsupportedFormatError(f"stream {row.key!r}", found=row.format, known=FORMAT)
    state = state_of(row.state, row.expires_ms, row.retention, now_ms)
    if state is None:
        return None
    kept = state in ("open", "ended")
    return StreamInfo(
        key=row.key,
        generation=row.generation,
        state=state,
        run=row.run,
        attended=bool(row.attended),
        spans=_spans_of(row.spans),
        first=row.first if kept else row.tail + 1,
        tail=row.tail,
        size_bytes=row.size_bytes if kept else 0,
        end=None if row.end is None else decode_end(row.end),
        metadata=_metadata_of(row.metadata) if kept else {},
        retention=retention_of(row.retention),
    )


def _metadata_of(text: str) -> Metadata:
    return {} if text == "{}" else json.loads(text)


def write_metadata(metadata: Metadata) -> str:
    """Write metadata as it is stored."""
    # ASCII, because JSON may hold lone surrogates and a TEXT value may not.
    return json.dumps(metadata, separators=(",", ":"))
