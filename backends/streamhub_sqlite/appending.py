"""Append: everything is decided first, in Python; then all is written with a few statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from streamhub.errors import StreamHubError
from streamhub.records import encode_end
from streamhub.rules import admit_append
from streamhub.types import Append, Appended, Retention
from streamhub_sqlite import contents
from streamhub_sqlite.clock import milliseconds
from streamhub_sqlite.contents import Kept
from streamhub_sqlite.queries import load
from streamhub_sqlite.streams import Row, find_many, info_of, write_metadata
from streamhub_sqlite.transaction import Hint, Writing

_SQL = load("stream.sql")


class _Plan(NamedTuple):
    """An append that is admitted, and what its stream will be."""

    append: Append
    row: Row
    kept: Kept
    expires_ms: int


def append(writing: Writing, batch: Sequence[Append]) -> list[Appended | StreamHubError]:
    """Store a batch; see ``StreamStore.append``."""
    rows = find_many(writing, [item.key for item in batch])
    answers: list[Appended | StreamHubError] = []
    plans: list[_Plan] = []
    for item in batch:
        try:
            decided = _decide(writing, rows.get(item.key), item)
        except StreamHubError as exc:
            answers.append(exc)
            continue
        if isinstance(decided, _Plan):
            plans.append(decided)
        answers.append(Appended(item.last))
    _write(writing, plans)
    return answers


def _decide(writing: Writing, row: Row | None, item: Append) -> _Plan | Appended:
    info = info_of(row, writing.now_ms)
    nonce = None
    if row is not None and item.chunks and item.first <= row.tail:
        nonce = contents.nonce_at(writing, row.content, item.first)
    done = admit_append(info, item, nonce_at_first=nonce, end_nonce=None if row is None else row.end_nonce)
    if done is not None:
        return done
    row = cast("Row", row)
    retention = cast("Retention", info and info.retention)
    kept = Kept(row.first, row.size_bytes)
    if item.chunks:
        kept = contents.plan_trim(writing, row.content, kept, item, retention)
    life = retention.unfinished_seconds if item.end is None else retention.ended_seconds
    return _Plan(item, row, kept, writing.now_ms + milliseconds(life))


def _write(writing: Writing, plans: Sequence[_Plan]) -> None:
    records: list[tuple[object, ...]] = []
    tails: list[tuple[object, ...]] = []
    rest: list[tuple[int, _Plan]] = []
    for plan in plans:
        item, row, kept, expires_ms = plan
        changed = writing.change()
        if item.chunks:
            records.append(contents.record_of(changed, row.content, item))
        tails.append((row.id, kept.first, item.last, kept.size_bytes, expires_ms))
        writing.outbox.hints.append(Hint(item.key, changed, item))
        if item.end is not None or item.metadata is not None or kept.first > row.first:
            rest.append((changed, plan))
    contents.insert(writing, records)
    writing.write_many(_SQL["set_tail"], tails)
    for changed, plan in rest:
        _write_rest(writing, plan, changed)


def _write_rest(writing: Writing, plan: _Plan, changed: int) -> None:
    """Write what only some appends carry or cause."""
    item, row = plan.append, plan.row
    if item.metadata is not None:
        writing.write(_SQL["metadata"], (write_metadata(item.metadata), row.id))
    if item.end is not None:
        writing.write(_SQL["end"], (encode_end(item.end), item.nonce, plan.expires_ms, changed, row.id))
    if plan.kept.first > row.first:
        contents.trim(writing, row.content, plan.kept.first)
