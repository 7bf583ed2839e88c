"""Open: decided in Python on what was found, and written only if that is still so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamhub.errors import BackendUnavailableError, StreamHubError
from streamhub.rules import admit_open
from streamhub.types import Metadata, Retention, Seen, StreamInfo
from streamhub_postgres.rows import Row, info_of, row_of, write_metadata
from streamhub_postgres.wire import Wire

# How often what was found has changed before it could be written.
_ATTEMPTS = 20

# The greatest number that a column holds; a cap beyond it is none.
_GREATEST = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The arguments of one ``StreamStore.open``."""

    key: str
    generation: int
    owner: str
    run: str
    expect: Seen | None
    resume: bool
    attended: bool
    metadata: Metadata | None
    retention: Retention

    @property
    def columns(self) -> tuple[object, ...]:
        """The arguments that create and reopen share."""
        retention = self.retention
        return (
            self.key,
            self.generation,
            self.owner,
            self.run,
            self.attended,
            write_metadata(self.metadata),
            retention.unfinished_seconds,
            retention.ended_seconds,
            retention.fence_seconds,
            min(retention.max_bytes, _GREATEST),
            None if retention.max_chunks is None else min(retention.max_chunks, _GREATEST),
            retention.overflow,
        )


async def open_run(wire: Wire, queries: dict[str, str], notifies: bool, wanted: Opening) -> StreamInfo:
    """Begin a run, or continue it; see ``StreamStore.open``.

    What decides is a generation, its owner and a state. The statement that writes repeats them as its condition, on the
    locked row: if they have changed, this looks and decides again. In between nothing is held.
    """
    for _ in range(_ATTEMPTS):
        row = await _find(wire, queries, wanted.key)
        info = info_of(row)
        if not _admit(wanted, info, row) and info is not None:
            return info
        if row is None:
            written = await wire.fetch(queries["create"], *wanted.columns, notifies)
        else:
            seen = (row.generation, row.owner, row.state or "gone")
            written = await wire.fetch(queries["reopen"], *wanted.columns, notifies, *seen, row.content, wanted.resume)
        for columns in written:
            return _described(columns[:-1])
    raise BackendUnavailableError(f"stream {wanted.key!r} changes all the time")


def _admit(wanted: Opening, info: StreamInfo | None, row: Row | None) -> bool:
    return admit_open(
        info,
        None if row is None else row.owner,
        key=wanted.key,
        generation=wanted.generation,
        owner=wanted.owner,
        run=wanted.run,
        expect=wanted.expect,
        resume=wanted.resume,
        attended=wanted.attended,
    )


async def _find(wire: Wire, queries: dict[str, str], key: str) -> Row | None:
    for columns in await wire.fetch(queries["find"], [key]):
        return row_of(columns)
    return None


def _described(columns: Any) -> StreamInfo:
    info = info_of(row_of(columns))
    if info is None:  # pragma: no cover - the statement has just given it time
        raise StreamHubError("a stream was opened, and is gone at the same moment")
    return info
