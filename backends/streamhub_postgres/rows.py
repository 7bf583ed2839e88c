"""A row of table stream, as Python values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from streamhub.errors import UnsupportedFormatError
from streamhub.records import decode_end, decode_spans
from streamhub.types import End, Metadata, Overflow, Retention, Span, StreamInfo, StreamState

FORMAT = 1


class Row(NamedTuple):
    """The columns of ``queries.COLUMNS``."""

    key: str
    format: int
    generation: int
    owner: str
    run: str
    attended: bool
    stored_state: str
    spans_text: str
    end_text: str | None
    metadata_text: str
    unfinished_seconds: float
    ended_seconds: float
    fence_seconds: float
    max_bytes: int
    max_chunks: int | None
    overflow: Overflow
    content: int | None
    first: int
    tail: int
    size_bytes: int
    late: float

    @property
    def state(self) -> StreamState | None:
        """The state at the moment of reading; None if its fence too is over."""
        if self.late < 0:
            return cast("StreamState", self.stored_state)
        if self.late >= self.fence_seconds:
            return None
        return "deleted" if self.stored_state == "deleted" else "expired"

    @property
    def retention(self) -> Retention:
        """How long it is kept, and how much of it."""
        return Retention(
            unfinished_seconds=self.unfinished_seconds,
            ended_seconds=self.ended_seconds,
            fence_seconds=self.fence_seconds,
            max_bytes=self.max_bytes,
            max_chunks=self.max_chunks,
            overflow=self.overflow,
        )

    @property
    def spans(self) -> tuple[Span, ...]:
        """The opens of the run."""
        return decode_spans(self.spans_text)

    @property
    def end(self) -> End | None:
        """The end, if it has one."""
        return None if self.end_text is None else decode_end(self.end_text)

    @property
    def metadata(self) -> Metadata:
        """The metadata, made anew at each call."""
        return json.loads(self.metadata_text)


def row_of(columns: Sequence[Any]) -> Row:
    """Make a row of what a statement answered.

    Raises:
        UnsupportedFormatError: a later release wrote it.
    """
    row = Row(*columns)
    if row.format != FORMAT:
        raise UnsupportedFormatError(f"stream {row.key!r}", found=row.format, known=FORMAT)
    return row


def info_of(row: Row | None) -> StreamInfo | None:
    """Describe a row; None if there is nothing, or its fence too is over."""
    state = None if row is None else row.state
    if row is None or state is None:
        return None
    fence = state in ("deleted", "expired")
    return StreamInfo(
        key=row.key,
        generation=row.generation,
        state=state,
        run=row.run,
        attended=row.attended,
        spans=row.spans,
        first=row.tail + 1 if fence else row.first,
        tail=row.tail,
        size_bytes=0 if fence else row.size_bytes,
        end=row.end,
        metadata={} if fence else row.metadata,
        retention=row.retention,
    )


def write_metadata(metadata: Metadata | None) -> str | None:
    """Write metadata as JSON text."""
    return None if metadata is None else json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
