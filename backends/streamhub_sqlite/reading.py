"""Read, describe and list: what needs no more than a read transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from streamhub.errors import StreamHubError, StreamNotFoundError
from streamhub.rules import check_present
from streamhub.types import Page, Read, StreamInfo
from streamhub_sqlite.contents import chunks_after
from streamhub_sqlite.queries import load
from streamhub_sqlite.streams import Row, find, info_of, state_of
from streamhub_sqlite.transaction import Reading

_SQL = load("stream.sql")


def read(reading: Reading, reads: Sequence[Read]) -> list[Page | StreamHubError]:
    """Read pages; see ``StreamStore.read``."""
    answers: list[Page | StreamHubError] = []
    for item in reads:
        try:
            answers.append(_page(reading, item))
        except StreamHubError as exc:
            answers.append(exc)
    return answers


def _page(reading: Reading, item: Read) -> Page:
    row = find(reading, item.key)
    info = info_of(row, reading.now_ms)
    if info is None:
        raise StreamNotFoundError(item.key)
    check_present(info)
    stored = info.first <= item.after_index + 1 <= info.tail
    return Page(
        run=info.run,
        attended=info.attended,
        spans=info.spans,
        chunks=_chunks(reading, cast("Row", row), item) if stored else (),
        first=info.first,
        tail=info.tail,
        end=info.end,
        metadata=info.metadata,
    )


def _chunks(reading: Reading, row: Row, item: Read) -> tuple[bytes, ...]:
    taken: list[bytes] = []
    size_bytes = 0
    for chunks in chunks_after(reading, row.content, item.after_index, max(item.max_chunks, 1)):
        more = sum(map(len, chunks))
        if len(taken) + len(chunks) <= item.max_chunks and size_bytes + more <= item.max_bytes:
            taken += chunks
            size_bytes += more
            continue
        for chunk in chunks:
            size_bytes += len(chunk)
            if taken and (len(taken) >= item.max_chunks or size_bytes > item.max_bytes):
                break
            taken.append(chunk)
        break
    return tuple(taken)


def describe(reading: Reading, keys: Sequence[str]) -> list[StreamInfo | None]:
    """Describe streams; see ``StreamStore.describe``."""
    return [info_of(find(reading, key), reading.now_ms) for key in keys]


def list_keys(reading: Reading, start: str, limit: int, *, inclusive: bool) -> tuple[list[str], str | None]:
    """Return keys in order from ``start`` on, and where to go on after; None at the end."""
    rows = reading.rows(_SQL["keys_from" if inclusive else "keys"], (start, limit))
    keys = [key for key, state, expires_ms, retention in rows if state_of(state, expires_ms, retention, reading.now_ms)]
    return keys, rows[-1][0] if len(rows) == limit else None
