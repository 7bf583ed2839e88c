"""How streams go: touched to stay, deleted, expired and swept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streamhub.types import StreamInfo
from streamhub_sqlite import contents
from streamhub_sqlite.clock import milliseconds
from streamhub_sqlite.queries import load
from streamhub_sqlite.streams import FORMAT, Row, fence_ends_ms, find, info_of, retention_of, state_of
from streamhub_sqlite.transaction import Hint, Writing

_SQL = load("stream.sql")

# How many rows a transaction that sweeps looks at: it holds the write lock meanwhile.
_SWEEP = 200


class Swept(NamedTuple):
    """What one transaction of sweep did."""

    removed: int
    more: bool


def touch(writing: Writing, keys: Sequence[str]) -> list[StreamInfo | None]:
    """Describe streams and begin the retention of un-ended runs anew."""
    infos: list[StreamInfo | None] = []
    todo: list[tuple[int, int]] = []
    for key in keys:
        row = find(writing, key)
        info = info_of(row, writing.now_ms)
        infos.append(info)
        if row is not None and info is not None and info.state == "open":
            todo.append((writing.now_ms + milliseconds(info.retention.unfinished_seconds), row.id))
    for values in todo:
        writing.write(_SQL["touch"], values)
    return infos


def delete(writing: Writing, key: str) -> bool:
    """Remove a stream; see ``StreamStore.delete``."""
    row = find(writing, key)
    info = info_of(row, writing.now_ms)
    if row is None or info is None or info.state in ("deleted", "expired"):
        return False
    _fence(writing, row, "deleted", writing.now_ms)
    return True


def _fence(writing: Writing, row: Row, state: str, expires_ms: int) -> None:
    changed = writing.change()
    contents.discard(writing, row.content)
    due_ms = fence_ends_ms(expires_ms, retention_of(row.retention))
    writing.write(_SQL["fence"], (state, due_ms, changed, row.id))
    writing.write_many(_SQL["set_tail"], [(row.id, row.tail + 1, row.tail, 0, expires_ms)])
    writing.outbox.hints.append(Hint(row.key, changed))


def sweep(writing: Writing, limit: int) -> Swept:
    """Remove up to ``limit`` streams and fences whose time has come."""
    wanted = min(limit, _SWEEP)
    keys = [row[0] for row in writing.rows(_SQL["due"], (FORMAT, writing.now_ms, wanted))]
    removed = sum([_retire(writing, key) for key in keys])
    return Swept(removed, len(keys) == wanted)


def _retire(writing: Writing, key: str) -> bool:
    row = find(writing, key)
    if row is None:
        return False
    state = state_of(row.state, row.expires_ms, row.retention, writing.now_ms)
    if state is None:
        contents.discard(writing, row.content)
        writing.write(_SQL["forget"], (row.id,))
        writing.write(_SQL["forget_tail"], (row.id,))
        return True
    if state == "expired" and row.content is not None:
        _fence(writing, row, row.state, row.expires_ms)
        return True
    # Appends and renewals have given it more time since it was noted down.
    gone = state in ("deleted", "expired")
    due_ms = fence_ends_ms(row.expires_ms, retention_of(row.retention)) if gone else row.expires_ms
    writing.write(_SQL["postpone"], (due_ms, row.id))
    return False
