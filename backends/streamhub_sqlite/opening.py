"""Open: a run begins, or goes on, under a higher generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from streamhub.records import encode_retention, encode_spans
from streamhub.rules import admit_open, opened
from streamhub.types import Metadata, Retention, Seen, StreamInfo
from streamhub_sqlite import contents
from streamhub_sqlite.clock import milliseconds
from streamhub_sqlite.queries import load
from streamhub_sqlite.streams import FORMAT, Row, find, info_of, write_metadata
from streamhub_sqlite.transaction import Hint, Writing

_SQL = load("stream.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The arguments of ``StreamStore.open``."""

    key: str
    generation: int
    owner: str
    run: str
    expect: Seen | None
    resume: bool
    attended: bool
    metadata: Metadata | None
    retention: Retention


def open_run(writing: Writing, opening: Opening) -> StreamInfo:
    """Open a run; see ``StreamStore.open``."""
    row = find(writing, opening.key)
    info = info_of(row, writing.now_ms)
    admitted = admit_open(
        info,
        None if row is None else row.owner,
        key=opening.key,
        generation=opening.generation,
        owner=opening.owner,
        run=opening.run,
        expect=opening.expect,
        resume=opening.resume,
        attended=opening.attended,
    )
    if not admitted:
        return cast("StreamInfo", info)
    after = opened(
        info,
        key=opening.key,
        generation=opening.generation,
        run=opening.run,
        resume=opening.resume,
        attended=opening.attended,
        metadata=opening.metadata,
        retention=opening.retention,
    )
    _write(writing, row, opening, after)
    return after


def _write(writing: Writing, row: Row | None, opening: Opening, after: StreamInfo) -> None:
    changed = writing.change()
    content = row.content if row is not None and opening.resume else changed
    if row is not None and content != row.content:
        contents.discard(writing, row.content)
    expires_ms = writing.now_ms + milliseconds(after.retention.unfinished_seconds)
    values = (
        FORMAT,
        after.generation,
        opening.owner,
        after.run,
        after.attended,
        after.state,
        encode_spans(after.spans),
        None,
        None,
        write_metadata(after.metadata),
        encode_retention(after.retention),
        content,
        expires_ms,
        changed,
    )
    if row is None:
        cursor = writing.connection.execute(_SQL["insert"], (opening.key, *values))
        stream = cast("int", cursor.lastrowid)
    else:
        stream = row.id
        writing.write(_SQL["update"], (*values, stream))
    tail = (stream, after.first, after.tail, after.size_bytes, expires_ms)
    writing.write_many(_SQL["set_tail"], [tail])
    writing.outbox.hints.append(Hint(opening.key, changed))
